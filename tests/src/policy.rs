//! Policies made by hand for a test: `Policy::new().ttl(60).config("test", "")`.
//!
//! They are component text, so that they need no tool. Where what lies in their memory is told in
//! `plugins/_hostile/policy.wat`, which they are made of.

use std::fmt::Write;
use std::path::{Path, PathBuf};

const WORLD: &str = include_str!("../../plugins/_hostile/world.wat");
const POLICY: &str = include_str!("../../plugins/_hostile/policy.wat");
const COLLIDING_PARTS: &str = include_str!("../../plugins/_hostile/colliding_parts.wat");
const HOOKS: &str = include_str!("../../plugins/_hostile/hooks.wat");

/// Where a test's own texts begin.
const TEXTS: usize = 0xd00;

/// A scope as a policy says it.
#[derive(Clone, Copy, Debug)]
pub enum Scope<'a> {
    /// A part of the user.
    WithinUser(&'a str),
    /// The user.
    User,
    /// A verified claim.
    Claim(&'a str),
    /// The tenant.
    Tenant,
    /// Everybody with this name.
    Shared(&'a str),
}

/// A policy to be: it takes the route's plan and changes what the test says.
#[derive(Clone)]
pub struct Policy {
    module: &'static str,
    configure: String,
    on_request: String,
    on_candidates: String,
    on_response: String,
    has_hooks: bool,
    data: String,
    functions: String,
    next: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy {
    /// Takes the route's plan as it is.
    pub fn new() -> Self {
        Self {
            module: POLICY,
            configure: String::new(),
            on_request: String::new(),
            on_candidates: String::new(),
            on_response: String::new(),
            has_hooks: false,
            data: String::new(),
            functions: String::new(),
            next: TEXTS,
        }
    }

    /// Adds key parts that are made to collide: a request of n bytes gets the list n modulo [`Policy::COLLIDING_LISTS`].
    pub fn colliding_parts() -> Self {
        Self { module: COLLIDING_PARTS, ..Self::new() }
    }

    /// How many lists [`Policy::colliding_parts`] has.
    pub const COLLIDING_LISTS: usize = 48;

    /// Instructions for `on-request`, after the route's plan was taken.
    pub fn on_request(mut self, code: &str) -> Self {
        writeln!(self.on_request, "{code}").unwrap();
        self
    }

    /// Instructions for `configure`.
    pub fn configure(mut self, code: &str) -> Self {
        writeln!(self.configure, "{code}").unwrap();
        self
    }

    /// A time to live, in seconds.
    pub fn ttl(self, seconds: u32) -> Self {
        self.store(0x844, seconds)
    }

    /// Stale windows, in seconds.
    pub fn stale(self, while_revalidate: u32, if_error: u32) -> Self {
        self.store(0x848, while_revalidate).store(0x84c, if_error)
    }

    /// A scope.
    pub fn scope(self, scope: Scope<'_>) -> Self {
        let (case, text) = case(scope);
        self.byte(0x818, case).text(0x81c, text)
    }

    /// A threshold of similarity, as a WAT literal: `0.95`, `nan`, `inf`.
    pub fn threshold(self, literal: &str) -> Self {
        self.on_request(&format!("(f32.store (i32.const 0x834) (f32.const {literal}))"))
    }

    /// Looks up, but always asks.
    pub fn shadow(self) -> Self {
        self.byte(0x850, 1)
    }

    /// Looks up, but doesn't store.
    pub fn no_store(self) -> Self {
        self.byte(0x851, 0)
    }

    /// Another pool.
    pub fn pool(self, name: &str) -> Self {
        self.byte(0x854, 1).text(0x858, name)
    }

    /// Another model.
    pub fn model(self, name: &str) -> Self {
        self.byte(0x868, 1).text(0x86c, name)
    }

    /// A label of a plan.
    pub fn label(self, name: &str, value: &str) -> Self {
        self.label_at(0x87c, name, value)
    }

    /// A label of a request that is kept out of the cache.
    pub fn label_of_bypass(self, name: &str, value: &str) -> Self {
        self.label_at(0x82c, name, value)
    }

    fn label_at(self, list: usize, name: &str, value: &str) -> Self {
        let at = self.next;
        let this = self.room(16).text(at, name).text(at + 8, value);
        this.store(list, at as u32).store(list + 4, 1)
    }

    /// A request header as a part of the key.
    pub fn key_header(self, name: &str) -> Self {
        self.key_headers(&[name])
    }

    /// Request headers as parts of the key, in this order.
    pub fn key_headers(self, names: &[&str]) -> Self {
        let list = self.next;
        let this = self.room(12 * names.len()).store(0x804, list as u32).store(0x808, names.len() as u32);
        let places = (list..).step_by(12);
        names.iter().zip(places).fold(this, |this, (name, at)| this.byte(at, 1).text(at + 4, name))
    }

    /// The system prompt as the routing key.
    pub fn route_by_system_prompt(self) -> Self {
        let at = self.next;
        self.room(12).byte(at, 7).store(0x860, at as u32).store(0x864, 1)
    }

    /// Leaves lines that start so out of the value at a JSON pointer, of the key and perhaps of what is sent.
    pub fn drop_lines(self, pointer: &str, start: &str, send_upstream: bool) -> Self {
        let at = self.next;
        let this = self.room(24).text(at, pointer).byte(at + 8, 1).text(at + 12, start);
        this.byte(at + 20, u8::from(send_upstream)).store(0x80c, at as u32).store(0x810, 1)
    }

    /// Keeps requests out of the cache.
    pub fn bypass(self, reason: &str) -> Self {
        self.blank().byte(0x800, 1).text(0x804, reason)
    }

    /// Another pool for requests that are kept out of the cache.
    pub fn pool_of_bypass(self, name: &str) -> Self {
        self.byte(0x80c, 1).text(0x810, name)
    }

    /// A function of the core module.
    pub fn function(mut self, text: &str) -> Self {
        writeln!(self.functions, "    {text}").unwrap();
        self
    }

    /// Refuses requests.
    pub fn refuse(self, status: u32, message: &str, retry_after_s: u32) -> Self {
        let this = self.blank().byte(0x800, 2).store(0x804, status).text(0x808, message);
        this.byte(0x810, 1).store(0x814, retry_after_s)
    }

    /// Has the candidates shown, and serves none.
    pub fn accepts_none(mut self, reason: &str) -> Self {
        self.has_hooks = true;
        let at = self.put(reason);
        write!(
            self.on_candidates,
            "(i32.store8 (i32.const 0x900) (i32.const 1)) (call $text (i32.const 0x904) (i32.const {at}) (i32.const {}))",
            reason.len()
        )
        .unwrap();
        self.keeps(u32::MAX)
    }

    /// Has answers shown, and keeps them for so long.
    pub fn keeps(mut self, ttl_s: u32) -> Self {
        self.has_hooks = true;
        let ttl = ttl_s.cast_signed();
        for at in [0xa04, 0xa08, 0xa0c] {
            writeln!(self.on_response, "(i32.store (i32.const {at}) (i32.const {ttl}))").unwrap();
        }
        self
    }

    /// Has answers shown, and keeps them for fewer.
    pub fn narrows(self, scope: Scope<'_>) -> Self {
        let (case, text) = case(scope);
        let mut this = self.keeps(u32::MAX);
        let at = this.put(text);
        write!(
            this.on_response,
            "(i32.store8 (i32.const 0xa10) (i32.const 1)) (i32.store8 (i32.const 0xa14) (i32.const {case}))
             (call $text (i32.const 0xa18) (i32.const {at}) (i32.const {}))",
            text.len()
        )
        .unwrap();
        this
    }

    /// Has answers shown, and keeps them for exact hits only.
    pub fn exact_only(self) -> Self {
        let mut this = self.keeps(u32::MAX);
        this.on_response.push_str("(i32.store8 (i32.const 0xa20) (i32.const 1))");
        this
    }

    /// Has answers shown, and keeps them with these tags.
    pub fn tags(self, tags: &[&str]) -> Self {
        let list = self.next;
        let mut this = self.keeps(u32::MAX).room(8 * tags.len());
        for (nth, tag) in tags.iter().enumerate() {
            let (at, place, length) = (this.put(tag), list + 8 * nth, tag.len());
            writeln!(
                this.on_response,
                "(call $text (i32.const {place}) (i32.const {at}) (i32.const {length}))"
            )
            .unwrap();
        }
        let fields = [(0xa24, list), (0xa28, tags.len())];
        for (at, value) in fields {
            writeln!(this.on_response, "(i32.store (i32.const {at}) (i32.const {value}))").unwrap();
        }
        this
    }

    /// Has answers shown, and keeps none.
    pub fn skips(mut self, reason: &str) -> Self {
        self.has_hooks = true;
        let at = self.put(reason);
        write!(
            self.on_response,
            "(i32.store8 (i32.const 0xa00) (i32.const 1)) (call $text (i32.const 0xa04) (i32.const {at}) (i32.const {}))",
            reason.len()
        )
        .unwrap();
        self
    }

    /// Writes the component and gives its table of a config file.
    pub fn table(&self, dir: &Path, name: &str, lines: &str) -> String {
        format!("[plugin.{name}]\nfile = {:?}\n{lines}\n\n", self.write(dir, name))
    }

    /// Writes the component into a folder.
    pub fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(format!("{name}.wasm"));
        // As deployments do it: nobody ever sees half a file.
        let fresh = dir.join(format!("{name}.wasm.new"));
        std::fs::write(&fresh, self.component()).unwrap();
        std::fs::rename(&fresh, &path).unwrap();
        path
    }

    fn component(&self) -> String {
        let module = self
            .module
            .replace(";; @configure", &self.configure)
            .replace(";; @on-request", &self.on_request)
            .replace(";; @on-candidates", &self.on_candidates)
            .replace(";; @on-response", &self.on_response)
            .replacen("(global $calls", &format!("{}\n    (global $calls", self.data), 1)
            .replacen(
                "(func (export \"configure\")",
                &format!("{}\n    (func (export \"configure\")", self.functions),
                1,
            );
        let hooks = if self.has_hooks { HOOKS } else { "" };
        WORLD.replace(";; @policy", &module).replace(";; @hooks", hooks)
    }

    fn blank(self) -> Self {
        self.on_request("(memory.fill (i32.const 0x800) (i32.const 0) (i32.const 0x100))")
    }

    fn store(self, at: usize, value: u32) -> Self {
        let value = value.cast_signed();
        self.on_request(&format!("(i32.store (i32.const {at}) (i32.const {value}))"))
    }

    fn byte(self, at: usize, value: u8) -> Self {
        self.on_request(&format!("(i32.store8 (i32.const {at}) (i32.const {value}))"))
    }

    /// A text's address and length.
    fn text(mut self, at: usize, text: &str) -> Self {
        let from = self.put(text);
        self.on_request(&format!(
            "(call $text (i32.const {at}) (i32.const {from}) (i32.const {}))",
            text.len()
        ))
    }

    fn put(&mut self, text: &str) -> usize {
        let at = self.next;
        let bytes: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        writeln!(self.data, "    (data (i32.const {at}) \"{bytes}\")").unwrap();
        self.next = (at + text.len()).next_multiple_of(8);
        at
    }

    fn room(mut self, bytes: usize) -> Self {
        self.next = (self.next + bytes).next_multiple_of(8);
        self
    }
}

fn case(scope: Scope<'_>) -> (u8, &str) {
    match scope {
        Scope::WithinUser(name) => (0, name),
        Scope::User => (1, ""),
        Scope::Claim(name) => (2, name),
        Scope::Tenant => (3, ""),
        Scope::Shared(name) => (4, name),
    }
}
