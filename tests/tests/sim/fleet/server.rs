//! A simulated model server: which blocks of prompts it has cached, and how long it takes.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::trace::Request;

/// To compute a block of a prompt that is not cached: 10,000 tokens a second.
const BLOCK_TIME: Duration = Duration::from_millis(51);
/// To generate a token.
const TOKEN_TIME: Duration = Duration::from_millis(30);

/// A server with a cache of the blocks that were used last.
pub(super) struct Server {
    blocks_max: Option<usize>,
    /// Block -> when it was used last.
    used: HashMap<u32, u64>,
    /// In the order of use; a block that was used again is there again, and its former place means nothing.
    order: VecDeque<(u32, u64)>,
    uses: u64,
}

impl Server {
    /// One with an empty cache of so many blocks; none: it forgets nothing.
    pub(super) fn new(blocks_max: Option<usize>) -> Self {
        Self { blocks_max, used: HashMap::new(), order: VecDeque::new(), uses: 0 }
    }

    /// Takes a request: how many of its blocks were cached, and when it will be done.
    pub(super) fn take(&mut self, request: &Request) -> (usize, Duration) {
        let cached = request.blocks.iter().take_while(|block| self.used.contains_key(block)).count();
        for &block in &request.blocks {
            self.touch(block);
        }
        self.forget();
        let missing = u32::try_from(request.blocks.len() - cached).unwrap();
        (cached, BLOCK_TIME * missing + TOKEN_TIME * request.output_length)
    }

    fn touch(&mut self, block: u32) {
        self.uses += 1;
        self.used.insert(block, self.uses);
        self.order.push_back((block, self.uses));
    }

    fn forget(&mut self) {
        let Some(blocks_max) = self.blocks_max else { return };
        while self.used.len() > blocks_max {
            let (block, use_) = self.order.pop_front().unwrap();
            if self.used[&block] == use_ {
                self.used.remove(&block);
            }
        }
    }
}
