//! What this version offers its guests: names and types here, the work in [`crate::guest`].

use super::bindings::refrain::policy::{candidates, embed, host, request, response, route, state, values};
use super::lower;
use crate::guest::{Guest, Level, SimilarityDenied};

impl request::Host for Guest {
    fn method(&mut self) -> String {
        self.request().map_or_else(String::new, |view| view.method().to_owned())
    }

    fn path(&mut self) -> String {
        self.request().map_or_else(String::new, |view| view.path().to_owned())
    }

    fn dialect(&mut self) -> String {
        self.request().map_or_else(String::new, |view| view.dialect().to_owned())
    }

    fn user(&mut self) -> Option<String> {
        self.request()?.user().map(str::to_owned)
    }

    fn claim(&mut self, name: String) -> Option<String> {
        self.request()?.claim(&name).map(str::to_owned)
    }

    fn header(&mut self, mut name: String) -> Option<String> {
        name.make_ascii_lowercase();
        self.request()?.header(&name).map(str::to_owned)
    }

    fn message_role(&mut self, index: u32) -> Option<request::Role> {
        self.request()?.message_role(index).map(lower::role)
    }

    fn message_text(&mut self, index: u32, max_bytes: u32) -> Option<String> {
        self.request()?.message_text(index, Self::text_max(max_bytes))
    }

    fn json(&mut self, pointer: String, max_bytes: u32) -> Option<String> {
        self.request()?.json(&pointer, Self::text_max(max_bytes))
    }

    fn body(&mut self, offset: u32, len: u32) -> Vec<u8> {
        self.body_slice(offset, len).to_vec()
    }
}

impl candidates::Host for Guest {
    fn evidence(&mut self, index: u32, name: String) -> Option<f32> {
        self.candidates()?.evidence(index, &name)
    }

    fn answer(&mut self, index: u32, max_bytes: u32) -> Option<String> {
        self.candidates()?.answer(index, Self::text_max(max_bytes))
    }
}

impl response::Host for Guest {
    fn header(&mut self, mut name: String) -> Option<String> {
        name.make_ascii_lowercase();
        self.response()?.header(&name).map(str::to_owned)
    }

    fn text(&mut self, max_bytes: u32) -> String {
        self.response().map_or_else(String::new, |view| view.text(Self::text_max(max_bytes)))
    }
}

impl route::Host for Guest {
    fn defaults(&mut self) -> values::Plan {
        lower::plan(self.plan())
    }
}

impl host::Host for Guest {
    fn log(&mut self, level: host::Level, message: String) {
        let level = match level {
            host::Level::Debug => Level::Debug,
            host::Level::Info => Level::Info,
            host::Level::Warn => Level::Warn,
            host::Level::Error => Level::Error,
        };
        self.policy().log(level, &message);
    }

    fn now_ms(&mut self) -> f64 {
        self.now()
    }

    fn count(&mut self, name: String, by: u32) {
        self.policy().count(&name, by);
    }

    fn observe(&mut self, name: String, value: f64) {
        self.policy().observe(&name, value);
    }
}

impl state::Host for Guest {
    fn get(&mut self, key: String) -> Option<Vec<u8>> {
        self.state()?.find(&key)
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_s: u32) -> bool {
        self.state().is_some_and(|state| state.set(key, value, ttl_s))
    }

    fn delete(&mut self, key: String) {
        if let Some(state) = self.state() {
            state.delete(&key);
        }
    }

    fn add(&mut self, key: String, delta: f64, ttl_s: u32) -> f64 {
        self.state().map_or(delta, |state| state.add(key, delta, ttl_s))
    }
}

impl embed::Host for Guest {
    async fn similarity(&mut self, a: String, b: String) -> Result<f32, embed::Error> {
        self.compare(a, b).await.map_err(|denied| match denied {
            SimilarityDenied::Grant => embed::Error::Denied,
            SimilarityDenied::Timeout => embed::Error::Timeout,
            SimilarityDenied::TooLong => embed::Error::TooLong,
            SimilarityDenied::Unavailable(why) => embed::Error::Unavailable(why),
        })
    }
}
