//! Looks up the names of servers again and again, for as long as the gateway runs.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Pool;
use crate::options::Server;

/// Looks a name up. Tests replace the system's resolver.
pub(crate) type Lookup = Arc<dyn Fn(String, u16) -> Answer + Send + Sync>;

/// The addresses, or why they cannot be had just now.
pub(crate) type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Asks the system's resolver, which gives no TTL.
pub(crate) fn system() -> Lookup {
    Arc::new(|name, port| Box::pin(async move { Ok(lookup_host((name, port)).await?.collect()) }))
}

/// Looks every name up each `resolve_interval`, and at once when the servers have changed.
pub(crate) async fn keep_resolved(pool: Arc<Pool>, lookup: Lookup) {
    loop {
        let options = pool.options();
        // At the same time: the answer for one name may take long.
        let mut lookups = JoinSet::new();
        for server in &options.servers {
            if let Server::Name(name, port) = server {
                let (server, answer) = (server.clone(), lookup(name.clone(), *port));
                lookups.spawn(async move { (server, answer.await) });
            }
        }
        while let Some(done) = lookups.join_next().await {
            match done {
                Ok((server, Ok(addresses))) => pool.resolved(&server, addresses),
                Ok((server, Err(error))) => pool.unresolved(&server, error.to_string()),
                // A panic of a lookup, which has been said.
                Err(_) => {}
            }
        }
        pool.all_resolved(&options);
        wait(&pool, options.resolve_interval).await;
    }
}

async fn wait(pool: &Pool, interval: Duration) {
    tokio::select! {
        () = sleep(interval) => {}
        () = pool.servers_changed.notified() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::options::UpstreamOptions;

    #[tokio::test(start_paused = true)]
    async fn a_name_is_looked_up_again_and_errors_leave_what_is_known() {
        let answers = Mutex::new(vec![None, Some("10.0.0.2:1"), None, Some("10.0.0.1:1")]);
        let lookup: Lookup = Arc::new(move |name, port| {
            assert_eq!((name.as_str(), port), ("broker", 1883));
            let answer = answers.lock().unwrap().pop().unwrap_or(Some("10.0.0.9:1"));
            Box::pin(async move { Ok(vec![answer.ok_or(io::ErrorKind::TimedOut)?.parse().unwrap()]) })
        });
        let servers = vec!["broker:1883".parse().unwrap()];
        let pool = Arc::new(Pool::new(Arc::new(UpstreamOptions { servers, ..UpstreamOptions::default() })));
        tokio::spawn(keep_resolved(Arc::clone(&pool), lookup));
        pool.until_resolved().await;
        for expected in ["10.0.0.1:1", "10.0.0.1:1", "10.0.0.2:1", "10.0.0.2:1", "10.0.0.9:1"] {
            let addresses: Vec<_> = pool.targets().iter().map(|target| target.address.to_string()).collect();
            assert_eq!(addresses, [expected]);
            sleep(pool.options().resolve_interval).await;
            tokio::task::yield_now().await;
        }
    }
}
