//! Where an answer came from, as its record tells it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use refrain_core::{EndpointId, Usage};
use refrain_upstream::{Account, PoolState, Timings, UpstreamResponse};

/// Where a response's body came from.
#[derive(Default)]
pub(crate) enum Origin {
    /// Refrain itself: an error, a preflight, a merged list.
    #[default]
    Own,
    /// An entry of the cache: what its generation had used.
    Stored(Usage),
    /// A generation that others may share.
    Flight(Arc<Dispatched>),
    /// An upstream's answer for this client alone.
    Passed(Arc<Dispatched>),
}

/// Who pays for a generation: the client that it was begun for, or, if that one leaves, the first other that stays. Otherwise
/// one could begin answers, leave, and have them for nothing by asking twice.
#[derive(Debug, Default)]
pub(crate) struct Bill {
    has_left: AtomicBool,
    is_paid: AtomicBool,
}

impl Bill {
    /// The client that it was begun for reads no further.
    pub(crate) fn leave(&self) {
        self.has_left.store(true, Relaxed);
    }

    /// Somebody pays for all of it.
    pub(crate) fn pay(&self) {
        self.is_paid.store(true, Relaxed);
    }

    /// Whether it falls to a client that joined.
    fn is_open(&self) -> bool {
        self.has_left.load(Relaxed) && !self.is_paid.load(Relaxed)
    }

    /// The same for one that stayed: it pays, and nobody after it.
    fn take(&self) -> bool {
        self.has_left.load(Relaxed) && !self.is_paid.swap(true, Relaxed)
    }
}

/// One request to an upstream, answered.
#[derive(Debug)]
pub(crate) struct Dispatched {
    /// Who answered.
    pub(crate) endpoint: EndpointId,
    /// How many tries it took, 1 for none in vain.
    pub(crate) attempts: u32,
    /// How long its parts took, up to the head.
    pub(crate) timings: Timings,
    /// What it used, once that is known.
    usage: Mutex<Option<Usage>>,
    /// How long its server took in all, once that is known.
    took: OnceLock<Duration>,
    /// About how many tokens of it have passed, where somebody counts.
    passed_tokens: AtomicU64,
    /// Where its tokens are put down, if nobody else does that.
    books: Option<Books>,
    /// Whose limits its tokens count against.
    bill: Arc<Bill>,
}

/// Where the tokens of an answer are put down.
#[derive(Debug)]
struct Books {
    account: Arc<Account>,
    pool: Arc<PoolState>,
}

impl Dispatched {
    /// Of a response whose head is there.
    pub(crate) fn of(response: &UpstreamResponse) -> Self {
        Self {
            endpoint: response.endpoint.clone(),
            attempts: response.attempts,
            timings: response.timings,
            usage: Mutex::new(None),
            took: OnceLock::new(),
            passed_tokens: AtomicU64::new(0),
            books: None,
            bill: Arc::default(),
        }
    }

    /// Has this said of who pays.
    pub(crate) fn billed(mut self, bill: Arc<Bill>) -> Self {
        self.bill = bill;
        self
    }

    /// Has its tokens put down to this account and pool once it has ended.
    pub(crate) fn on(mut self, account: Arc<Account>, pool: &Arc<PoolState>) -> Self {
        self.books = Some(Books { account, pool: pool.clone() });
        self
    }

    /// It has ended: what it used, if nobody else puts that down.
    pub(crate) fn ended(&self) -> Option<Usage> {
        let (Books { account, pool }, usage) = (self.books.as_ref()?, (*self.usage.lock())?);
        account.note_answer(usage);
        pool.add_output_tokens(usage.output_tokens.unwrap_or_default());
        Some(usage)
    }

    /// The answer says what it used so far.
    pub(crate) fn used(&self, usage: Usage) {
        *self.usage.lock() = Some(usage);
    }

    /// It is whole, and took its server so long.
    pub(crate) fn took(&self, time: Duration) {
        // Once a generation.
        let _ = self.took.set(time);
    }

    /// So far it has passed: what it says of its usage, if nobody knows better, and about how many tokens came.
    pub(crate) fn passed(&self, usage: Usage, tokens: u64) {
        self.passed_tokens.fetch_max(tokens, Relaxed);
        if usage != Usage::default() {
            self.usage.lock().get_or_insert(usage);
        }
    }
}

/// How a client ends with a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It leaves before anybody knows what the answer has used.
    Leaves,
    /// It stays to the end.
    Stays,
}

impl Origin {
    /// The client for whom it was generated pays.
    pub(crate) fn pay(&self, part: Stay) {
        if let (Self::Flight(dispatched), Stay::Stays) = (self, part) {
            dispatched.bill.pay();
        }
    }

    /// Whether a client that joined a generation pays for it, since whoever it was begun for has left.
    pub(crate) fn falls_to_follower(&self, part: Stay) -> bool {
        match (self, part) {
            (Self::Flight(dispatched), Stay::Stays) => dispatched.bill.take(),
            (Self::Flight(dispatched), Stay::Leaves) => dispatched.bill.is_open(),
            _ => false,
        }
    }

    /// How long its generation took a server, once it is whole.
    pub(crate) fn took(&self) -> Option<Duration> {
        self.dispatched().and_then(|dispatched| dispatched.took.get().copied())
    }

    /// Tokens of the answer, as far as known by now.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Self::Own => None,
            Self::Stored(usage) => Some(*usage),
            Self::Flight(dispatched) | Self::Passed(dispatched) => *dispatched.usage.lock(),
        }
    }

    /// About how many tokens of it have passed; 0 where nobody counts.
    pub(crate) fn passed_tokens(&self) -> u64 {
        self.dispatched().map_or(0, |dispatched| dispatched.passed_tokens.load(Relaxed))
    }

    /// The upstream's part in it.
    pub(crate) fn dispatched(&self) -> Option<&Dispatched> {
        match self {
            Self::Own | Self::Stored(_) => None,
            Self::Flight(dispatched) | Self::Passed(dispatched) => Some(dispatched),
        }
    }

    /// The label in metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Stored(_) => "cache",
            Self::Flight(_) | Self::Passed(_) => "upstream",
        }
    }
}
