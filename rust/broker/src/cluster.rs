//! This broker as one node of a cluster, by rmqtt's plugin for it.
//!
//! A node listens for its peers on two ports: on its own the Raft log, which says where each session and subscription is, and
//! on the one behind it the messages. rmqtt asks nobody on either who they are.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rmqtt::context::{CircuitBreakerConfig, ServerContext, ServerContextBuilder};
use rmqtt::types::NodeId;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

/// Which node a broker is, and where all nodes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The number of this node.
    pub node: u64,
    /// Of each node its number, and its `host:port`. The port behind that one is used too.
    pub peers: BTreeMap<u64, String>,
}

impl Cluster {
    /// Prepares the context of this node: its number, and what the plugin reads.
    ///
    /// The node with the lowest number begins the cluster, and the others wait for it. But if it comes back to nodes that are
    /// there, it must join them: it would begin a second cluster beside theirs if they choose a leader just then.
    pub(crate) async fn prepare(&self, builder: ServerContextBuilder) -> ServerContextBuilder {
        let lowest = self.peers.keys().next().copied().unwrap_or(self.node);
        let mut begins = lowest;
        if lowest == self.node {
            for (&node, address) in self.others() {
                if matches!(timeout(KNOCK, TcpStream::connect(address.as_str())).await, Ok(Ok(_))) {
                    begins = node;
                }
            }
        }
        // rmqtt's breaker drops what is for a node for 30 s after it has come back.
        let breaker =
            CircuitBreakerConfig { wait_duration_in_open: KNOCK, ..CircuitBreakerConfig::default() };
        builder
            .node_id(self.node)
            .circuit_breaker_config(breaker)
            .plugins_config_map_add(PLUGIN, self.plugin_config(begins))
    }

    fn plugin_config(&self, begins: NodeId) -> String {
        let mut config = format!(
            "worker_threads = 2\nleader_id = {begins}\nnode_grpc_client_timeout = \"{}s\"\n",
            ANSWER.as_secs()
        );
        for (name, behind) in [("raft_peer_addrs", 0), ("node_grpc_addrs", 1)] {
            let _ = write!(config, "{name} = [");
            for (node, address) in &self.peers {
                let _ = write!(config, "{:?}, ", format!("{node}@{}", shifted(address, behind)));
            }
            config.push_str("]\n");
        }
        // Without it, a node that comes back finds its port busy for a minute, and rmqtt ends the process.
        config.push_str("[raft]\ngrpc_reuseaddr = true\n");
        config
    }

    /// Joins the others, or begins. On return the context is the cluster's.
    pub(crate) async fn join(&self, context: &ServerContext) -> io::Result<()> {
        let own = self.peers.get(&self.node).map(String::as_str).unwrap_or_default();
        let mut address = None;
        for behind in [0, 1] {
            let given = shifted(own, behind);
            let found = lookup_host(&given).await?.next();
            let found = found.ok_or_else(|| io::Error::other(format!("{given} has no address")))?;
            // rmqtt tries again for ever if the port is taken, and says so to nobody.
            TcpListener::bind(found)
                .map_err(|error| io::Error::new(error.kind(), format!("{found}: {error}")))?;
            address = Some(found);
        }
        let Some(messages) = address else { return Ok(()) };
        context.node.start_grpc_server(context.clone(), messages, true, false);
        let deadline = Instant::now() + JOIN;
        // It fails at once while the others choose a leader.
        while let Err(error) = rmqtt_cluster_raft::register_named(context, PLUGIN, true, true).await {
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!("no peer lets this node into the cluster: {error:#}")));
            }
            sleep(KNOCK).await;
        }
        forget_own(context).await;
        Ok(())
    }

    fn others(&self) -> impl Iterator<Item = (&u64, &String)> {
        self.peers.iter().filter(|(node, _)| **node != self.node)
    }
}

/// Removes what the others remember of this node from before it came back: its sessions are gone. Left alone, each would get
/// its share of shared subscriptions for ever.
async fn forget_own(context: &ServerContext) {
    let own = context.node.id();
    let router = context.extends.router().await;
    let mut gone = Vec::new();
    for filter in router.relations() {
        let ids = filter.value().values().map(|(id, _)| id).filter(|id| id.node_id == own);
        gone.extend(ids.map(|id| (filter.key().clone(), id.clone())));
    }
    for (filter, id) in gone {
        let _ = router.remove(&filter, id).await;
    }
}

/// The nodes that do not answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silent(Arc<RwLock<HashSet<NodeId>>>);

impl Silent {
    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&node)
    }

    /// Asks all nodes, again and again.
    pub(crate) async fn watch(&self, context: &ServerContext) {
        loop {
            let shared = context.extends.shared().await;
            if let Ok(health) = shared.check_health().await {
                let silent = health.nodes.iter().filter(|node| !node.running).map(|node| node.node_id);
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = silent.collect();
            }
            drop(shared);
            sleep(KNOCK).await;
        }
    }
}

/// The address with a port that is so many higher.
fn shifted(address: &str, behind: u16) -> String {
    match address.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
        Some((host, Ok(port))) => format!("{host}:{}", port.saturating_add(behind)),
        _ => address.to_owned(),
    }
}

const PLUGIN: &str = "rmqtt-cluster-raft";
/// How long a connection to a peer may take, and the pause before the next attempt.
const KNOCK: Duration = Duration::from_secs(1);
/// How long another node may take to answer, for example when a session is to move from it.
const ANSWER: Duration = Duration::from_secs(3);
/// How long the others may take to let this node in.
const JOIN: Duration = Duration::from_mins(1);
