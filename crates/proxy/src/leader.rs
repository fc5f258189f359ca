//! A client's hold on a generation. The first client's own task drives the pump, which spares a task and its wake-ups; as
//! soon as somebody else depends on the pump, or the first client leaves, it goes on as a task of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use refrain_cache::{FlightEnd, Lead, Reader};

use crate::generate::FlightHead;
use crate::origin::Bill;
use crate::pump::Generation;
use crate::worker::Worker;

/// Reads a generation, and drives it if it is this client's own.
pub(crate) struct Reading {
    reader: Reader<Arc<FlightHead>>,
    pump: Option<OwnPump>,
}

impl Reading {
    /// Of an answer that somebody else's task gets.
    pub(crate) fn following(reader: Reader<Arc<FlightHead>>) -> Self {
        Self { reader, pump: None }
    }

    /// Of an answer that this client's task gets.
    pub(crate) fn leading(
        worker: &Arc<Worker>,
        generation: Generation,
        lead: Lead<Arc<FlightHead>>,
        reader: Reader<Arc<FlightHead>>,
    ) -> Self {
        let pump = Arc::new(Pump { worker: worker.clone(), state: Mutex::default() });
        let (shared, bill) = (pump.clone(), generation.bill.clone());
        lead.when_shared(move || shared.detach());
        // Boxed where it is made: it is long, and each move copies it.
        pump.begin(Box::pin(generation.pump(lead)));
        Self { reader, pump: Some(OwnPump { pump, bill }) }
    }

    /// Waits for the response head.
    ///
    /// # Errors
    /// The generation ended without one.
    pub(crate) async fn head(&mut self) -> Result<Arc<FlightHead>, FlightEnd> {
        std::future::poll_fn(|cx| match self.drive(cx) {
            Driven::Here => self.reader.poll_head(&mut Context::from_waker(Waker::noop())),
            Driven::Elsewhere => self.reader.poll_head(cx),
        })
        .await
    }

    /// The next bytes of the body; `None` once it is whole. An error is final.
    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FlightEnd>>> {
        let chunk = match self.drive(cx) {
            Driven::Here => self.reader.poll_chunk(&mut Context::from_waker(Waker::noop())),
            Driven::Elsewhere => self.reader.poll_chunk(cx),
        };
        if let (Poll::Ready(None | Some(Err(_))), Some(own)) = (&chunk, &self.pump) {
            own.bill.pay();
        }
        chunk
    }

    /// [`Reading::poll_chunk`] as a future.
    pub(crate) async fn chunk(&mut self) -> Option<Result<Bytes, FlightEnd>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn drive(&self, cx: &Context<'_>) -> Driven {
        self.pump.as_ref().map_or(Driven::Elsewhere, |own| own.pump.poll(cx))
    }
}

/// Who polls the pump.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driven {
    /// This task, just now: nothing comes between its polls, so that nobody needs to be woken for it.
    Here,
    /// Another task, or nobody any more.
    Elsewhere,
}

/// The leader's own hold: dropping it makes the pump a task, and leaves the bill to others.
struct OwnPump {
    pump: Arc<Pump>,
    bill: Arc<Bill>,
}

impl Drop for OwnPump {
    fn drop(&mut self) {
        self.bill.leave();
        self.pump.detach();
    }
}

/// A pump that one client's task drives.
struct Pump {
    worker: Arc<Worker>,
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    /// Not begun. Who depends on it by then has it spawned at once.
    #[default]
    New,
    Here {
        pump: Pin<Box<dyn Future<Output = ()> + Send>>,
        driver: Option<Waker>,
    },
    Elsewhere,
}

impl Pump {
    fn begin(&self, pump: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let mut state = self.state.lock();
        if let State::New = *state {
            *state = State::Here { pump, driver: None };
        } else {
            drop(state);
            self.worker.spawn(pump);
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Driven {
        let mut state = self.state.lock();
        let State::Here { pump, driver } = &mut *state else { return Driven::Elsewhere };
        match driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *driver = Some(cx.waker().clone()),
        }
        if pump.as_mut().poll(&mut Context::from_waker(cx.waker())).is_ready() {
            *state = State::Elsewhere;
            return Driven::Elsewhere;
        }
        Driven::Here
    }

    /// Makes it a task, if this client's task still drives it; that one reads like everybody else from then on.
    fn detach(&self) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Elsewhere);
        let State::Here { pump, driver } = state else { return };
        self.worker.spawn(pump);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}
