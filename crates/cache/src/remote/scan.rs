//! Walks over all entries' names, a batch at a time: what purges, rebuilding and the `store` commands need. In a cluster,
//! over each master in turn.

use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::{Value, cmd, from_redis_value};

use super::link::Link;
use super::trouble::StoreTrouble;

/// Names that a step may look at: a step holds the server's only thread for well under a millisecond.
const STEP: usize = 500;

/// A walk. Names may come twice where the table is rehashed meanwhile; what is there all the time comes at least once.
pub(super) struct Scan {
    pattern: String,
    /// Servers that are left, the one under way last; none: there is only one, which need not be named.
    nodes: Vec<Option<Node>>,
    cursor: u64,
}

/// A master of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    host: String,
    port: u16,
}

impl Scan {
    /// Of the names that match a pattern (`*` stands for anything).
    pub(super) async fn begin(link: &Link, pattern: String) -> Result<Self, StoreTrouble> {
        let nodes = if link.is_cluster() {
            masters(&link.ask(cmd("CLUSTER").arg("SLOTS")).await?).into_iter().map(Some).collect()
        } else {
            vec![None]
        };
        Ok(Self { pattern, nodes, cursor: 0 })
    }

    /// The next names, perhaps none; nothing once all were seen.
    pub(super) async fn next(&mut self, link: &Link) -> Result<Option<Vec<Vec<u8>>>, StoreTrouble> {
        let Some(node) = self.nodes.last() else { return Ok(None) };
        let mut scan = cmd("SCAN");
        scan.arg(self.cursor).arg("MATCH").arg(&self.pattern).arg("COUNT").arg(STEP);
        let reply = match node {
            None => link.ask(&scan).await?,
            Some(node) => link.ask_at(&scan, node.routing()).await?,
        };
        let (cursor, names): (u64, Vec<Vec<u8>>) = from_redis_value(reply).map_err(|error| {
            StoreTrouble::new(super::trouble::Trouble::Refused, format!("SCAN answered otherwise: {error}"))
        })?;
        self.cursor = cursor;
        if cursor == 0 {
            self.nodes.pop();
        }
        Ok(Some(names))
    }
}

impl Node {
    fn routing(&self) -> RoutingInfo {
        RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host: self.host.clone(), port: self.port })
    }
}

/// The masters that a `CLUSTER SLOTS` reply names, each once.
fn masters(slots: &Value) -> Vec<Node> {
    let Value::Array(ranges) = slots else { return Vec::new() };
    let mut masters = Vec::new();
    for master in ranges.iter().filter_map(master) {
        if !masters.contains(&master) {
            masters.push(master);
        }
    }
    masters
}

fn master(range: &Value) -> Option<Node> {
    let Value::Array(parts) = range else { return None };
    let Some(Value::Array(node)) = parts.get(2) else { return None };
    let (Value::BulkString(host), Value::Int(port)) = (node.first()?, node.get(1)?) else { return None };
    Some(Node { host: String::from_utf8(host.clone()).ok()?, port: u16::try_from(*port).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_master_is_walked_once() {
        let node = |port: i64| {
            Value::Array(vec![
                Value::BulkString(b"10.0.0.1".to_vec()),
                Value::Int(port),
                Value::BulkString(b"id".to_vec()),
            ])
        };
        let range =
            |master, replica| Value::Array(vec![Value::Int(0), Value::Int(9), node(master), node(replica)]);
        let slots = Value::Array(vec![range(1, 7), range(2, 8), range(1, 7), Value::Nil]);
        let ports: Vec<u16> = masters(&slots).iter().map(|node| node.port).collect();
        assert_eq!(ports, [1, 2]);
        assert!(masters(&Value::Nil).is_empty());
    }
}
