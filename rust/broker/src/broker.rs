//! The handle of the owner.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use proxyproto_acceptor::{Door, InheritedDescriptors, PrivatePort, RuntimeDescriptors};
use rmqtt::context::ServerContext;
use rmqtt::net::{Builder, Listener};
use rmqtt::router::DefaultRouter;
use rmqtt::server::MqttServer;
use rmqtt::session::Session;
use rmqtt::shared::DefaultShared;
use rmqtt::types::Id;
use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::oneshot;

use crate::acl::Acl;
use crate::credential::{Secret, client_of_session};
use crate::delivering::Delivering;
use crate::denials::Denials;
use crate::groups::InTurn;
use crate::hooks;
use crate::keeper::Keeper;
use crate::options::Options;
use crate::restoring::Restoring;
use crate::retained::Retained;
use crate::shared::{Shared, Stats, Unwritten};
use crate::store::{self, Contents, Store};
use crate::sys;

/// A broker in this process, on threads of its own. Dropping it ends it, and every session with it.
pub struct Broker {
    address: SocketAddr,
    port: Option<Arc<PrivatePort>>,
    shared: Arc<Shared>,
    context: ServerContext,
    handle: Handle,
    descriptors: RuntimeDescriptors,
    /// The file of the store.
    file: Option<PathBuf>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a session has subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Subscription {
    /// The filter, as the client has sent it: of a shared one with `$share/group/`.
    pub filter: String,
    /// The highest quality of service with which messages come.
    pub qos: u8,
}

/// A session whose client is away.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptSession {
    /// The client id.
    pub client_id: String,
    /// The user name.
    pub username: Option<String>,
    /// Where the client came from last.
    pub client: Option<SocketAddr>,
    /// The version in the CONNECT: 3 is MQTT 3.1, 4 is 3.1.1, 5 is 5.
    pub version: u8,
    /// Whether the client has asked for a session that continues no other.
    pub is_clean: bool,
    /// In seconds.
    pub keep_alive: u16,
    /// How long the session is kept after its client has gone, in seconds.
    pub session_expiry: u64,
    /// When the client came last, in milliseconds since 1970.
    pub connected_at: i64,
    /// When it went. If the process before this one ended while it was there, this is when this one began.
    pub disconnected_at: i64,
}

/// What became of a session that was to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Forgotten {
    /// It is gone, with its subscriptions and what waited for the client.
    Gone,
    /// There was none.
    Unknown,
    /// The client logs in at this moment, or does not let go of its session. It may be tried again.
    Busy,
}

impl Broker {
    /// Starts a broker on a port of 127.0.0.1 that the kernel chooses.
    ///
    /// # Errors
    ///
    /// [`StartError`], if there is no port, no thread or no randomness, or if the store of `persistence` cannot be used.
    pub fn start(options: Options, acl: Acl) -> Result<Self, StartError> {
        let secret = Secret::random().map_err(|error| StartError::new("no secret", error))?;
        let opened = options.persistence.as_deref().map(Store::open).transpose();
        let opened = opened.map_err(|error| StartError::new("backend.embedded", io::Error::other(error)))?;
        let (keeper, contents) = match opened {
            Some((store, contents)) => (Some(Keeper::new(store, contents.next)), contents),
            None => (None, Contents::default()),
        };
        let file = options.persistence.as_deref().map(store::file_in);
        let shared = Arc::new(Shared::new(secret, acl, keeper));
        let (started, awaited) = std::sync::mpsc::sync_channel(1);
        let (stop, stopped) = oneshot::channel();
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || {
                let runtime = match new_runtime(&options) {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = started.send(Err(StartError::new("no runtime", error)));
                        return;
                    }
                };
                let kept = Arc::clone(&own);
                let context = runtime.block_on(serve(&options, own, contents, &started, stopped));
                runtime.shutdown_timeout(SHUTDOWN);
                // rmqtt may hold what holds the store. Its file is free for the next broker from here on.
                if let Some(keeper) = &kept.keeper {
                    keeper.close();
                }
                if let Some(context) = context {
                    take_apart(&context);
                }
            })
            .map_err(|error| StartError::new("no thread", error))?;
        let gone = |_| StartError::new("its thread has ended", io::ErrorKind::Other.into());
        let (address, port, context, handle) = awaited.recv().map_err(gone)??;
        let descriptors = RuntimeDescriptors::of(&handle);
        let descriptors = descriptors.map_err(|error| StartError::new("no descriptor", error))?;
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(Self { address, port, shared, context, handle, descriptors, file, stop, thread })
    }

    /// Where the gateway connects to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The way there: with it, no other process of this machine reaches the broker. `None` if that cannot be: before Linux 4.6,
    /// or without the network 127.0.0.0/8. Others reach the port then, and are refused when they log in.
    #[must_use]
    pub fn port(&self) -> Option<&Arc<PrivatePort>> {
        self.port.as_ref()
    }

    /// What the gateway puts into each CONNECT.
    #[must_use]
    pub fn secret(&self) -> &Secret {
        &self.shared.secret
    }

    /// Puts other rules into force, for the sessions that are there too. Subscriptions that they have stay.
    pub fn set_acl(&self, acl: Acl) {
        self.shared.set_acl(acl);
    }

    /// What it has open now. A forked child must close it: with it the child would hold connections that have ended, and the
    /// lock of the store. A connection that comes in the same moment may be left.
    #[must_use]
    pub fn descriptors(&self) -> InheritedDescriptors {
        let open = self.descriptors.now_at_work();
        match &self.file {
            Some(file) => open.with_file(file),
            None => open,
        }
    }

    /// What was denied since the last call.
    #[must_use]
    pub fn take_denials(&self) -> Denials {
        self.shared.denials.take()
    }

    /// What could not be written to the disk since the last call.
    #[must_use]
    pub fn take_unwritten(&self) -> Option<Unwritten> {
        self.shared.unwritten.take()
    }

    /// What it has counted. It must not be called on a thread of a tokio runtime, as what follows.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counts = self.shared.counts.read();
        self.handle.block_on(async {
            let extends = &self.context.extends;
            let at_least_none = |count: isize| usize::try_from(count).unwrap_or(0);
            Stats {
                sessions: extends.shared().await.sessions_count(),
                subscriptions: extends.shared().await.subscriptions_count().await,
                retained: at_least_none(extends.retain().await.count().await),
                ..counts
            }
        })
    }

    /// What the session of this client id has subscribed to; `None`: there is no session.
    #[must_use]
    pub fn subscriptions(&self, client_id: &str) -> Option<Vec<Subscription>> {
        self.handle.block_on(async {
            let found = self.context.extends.shared().await.entry(self.id(client_id)).subscriptions().await?;
            let mut subscriptions: Vec<_> = found
                .iter()
                .map(|found| Subscription {
                    filter: match found.opts.shared_group() {
                        Some(group) => format!("$share/{group}/{}", found.topic),
                        None => found.topic.to_string(),
                    },
                    qos: found.opts.qos_value(),
                })
                .collect();
            subscriptions.sort_unstable();
            Some(subscriptions)
        })
    }

    /// The sessions whose clients are away. Those from before a restart are there as soon as the broker has started.
    #[must_use]
    pub fn kept(&self) -> Vec<KeptSession> {
        self.handle.block_on(async {
            // An entry locks its part of the map to find its session, which the iterator has locked.
            let entries: Vec<_> = self.context.extends.shared().await.iter().collect();
            let mut kept = Vec::new();
            for session in entries.iter().filter_map(|entry| entry.session()) {
                if session.connected().await.is_ok_and(|connected| !connected)
                    && let Ok(one) = kept_session(&session).await
                {
                    kept.push(one);
                }
            }
            kept
        })
    }

    /// Whether the session of this client id is on another node of the cluster.
    #[must_use]
    pub fn is_elsewhere(&self, client_id: &str) -> bool {
        self.handle.block_on(async {
            let status = self.context.extends.shared().await.session_status(client_id).await;
            status.is_some_and(|status| status.id.node_id != self.context.node.id())
        })
    }

    /// Ends the session of this client id, whether the client is there or away. It may take some seconds.
    #[must_use]
    pub fn forget(&self, client_id: &str) -> Forgotten {
        self.handle.block_on(async {
            let shared = self.context.extends.shared().await;
            let Some(status) = shared.session_status(client_id).await else { return Forgotten::Unknown };
            let is_here = status.id.node_id == self.context.node.id();
            let mut entry = shared.entry(if is_here { status.id.clone() } else { self.id(client_id) });
            drop(shared);
            if is_here {
                let Ok(locked) = entry.try_lock().await else { return Forgotten::Busy };
                entry = locked;
            }
            // A client that is there takes its session out itself, at times first.
            if entry.kick(true, true, true).await.is_err() {
                return Forgotten::Busy;
            }
            if let Some(keeper) = &self.shared.keeper
                && let Err(error) = store::until(keeper.forget(&status.id)).await
            {
                self.shared.unwritten.add(&error);
            }
            Forgotten::Gone
        })
    }

    fn id(&self, client_id: &str) -> Id {
        Id::from(self.context.node.id(), client_id.into())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn kept_session(session: &Session) -> rmqtt::Result<KeptSession> {
    let connect = session.connect_info().await?;
    Ok(KeptSession {
        client_id: session.id.client_id.to_string(),
        username: session.id.username.as_ref().filter(|name| !name.is_empty()).map(ToString::to_string),
        client: session.password().and_then(|password| client_of_session(password)),
        version: session.protocol().await?,
        is_clean: connect.clean_start(),
        keep_alive: connect.keep_alive(),
        session_expiry: session
            .fitter
            .session_expiry_interval(session.disconnect().await?.as_ref())
            .as_secs(),
        connected_at: session.connected_at().await?,
        disconnected_at: session.disconnected_at().await?,
    })
}

type Started = Result<(SocketAddr, Option<Arc<PrivatePort>>, ServerContext, Handle), StartError>;

fn new_runtime(options: &Options) -> io::Result<Runtime> {
    let number = AtomicUsize::new(0);
    runtime::Builder::new_multi_thread()
        .worker_threads(options.threads.max(1))
        .thread_name_fn(move || format!("broker-{}", number.fetch_add(1, Ordering::Relaxed)))
        .enable_all()
        .build()
}

/// Serves until the owner has gone.
async fn serve(
    options: &Options,
    shared: Arc<Shared>,
    contents: Contents,
    started: &std::sync::mpsc::SyncSender<Started>,
    stopped: oneshot::Receiver<()>,
) -> Option<ServerContext> {
    let Bound { listener, address, private } = match bind(options).await {
        Ok(bound) => bound,
        Err(error) => {
            let _ = started.send(Err(StartError::new("no port on 127.0.0.1", io::Error::other(error))));
            return None;
        }
    };
    let port = private.map(|(port, door)| {
        let shared = Arc::clone(&shared);
        tokio::spawn(door.turn_away(move || {
            shared.counts.strangers.fetch_add(1, Ordering::Relaxed);
        }));
        port
    });
    // rmqtt refuses logins on a machine that is busy. Here the gateway decides who comes in.
    let builder = ServerContext::new().busy_check_enable(false);
    #[cfg(feature = "cluster")]
    let builder = match &options.cluster {
        Some(cluster) => cluster.prepare(builder).await,
        None => builder,
    };
    let context = builder.build().await;
    let retained = Retained::new(options.max_retained, Arc::clone(&shared));
    *context.extends.retain_mut().await = Box::new(retained.clone());
    if options.shared_subscriptions {
        *context.extends.shared_subscription_mut().await = Box::new(InTurn::new(&shared));
    }
    if shared.keeper.is_some() {
        *context.extends.shared_mut().await = Box::new(Delivering::new(context.clone(), Arc::clone(&shared)));
    }
    hooks::register(&context, &shared, &retained).await;
    if let Some(keeper) = &shared.keeper {
        let restoring = Restoring {
            context: &context,
            keeper,
            listener: Arc::clone(&listener.cfg),
            listener_id: address.port(),
        };
        if let Err(error) = restoring.run(contents, &retained).await {
            let text = format!("persistence: a record cannot be read: {error}");
            let _ = started.send(Err(StartError::new("backend.embedded", io::Error::other(text))));
            return Some(context);
        }
    }
    #[cfg(feature = "cluster")]
    if let Some(cluster) = &options.cluster
        && let Err(error) = cluster.join(&context).await
    {
        let _ = started.send(Err(StartError::new("not in its cluster", error)));
        return Some(context);
    }
    let _ = started.send(Ok((address, port, context.clone(), Handle::current())));
    let server = MqttServer::new(context.clone()).listener_by_id(listener, address.port()).build();
    let expire = async {
        loop {
            tokio::time::sleep(EXPIRY_INTERVAL).await;
            retained.remove_expired().await;
        }
    };
    let watch = async {
        #[cfg(feature = "cluster")]
        if options.cluster.is_some() {
            shared.silent.watch(&context).await;
        }
        std::future::pending::<()>().await;
    };
    let tell = async {
        match options.sys_interval {
            Some(interval) => sys::publish(&context, &shared, interval).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = server.run() => {}
        () = watch => {}
        () = tell => {}
        () = expire => {}
        _ = stopped => {}
    }
    Some(context)
}

/// Lets go of what holds the context and is held by it, and with it of sessions, messages and the runtime's descriptors.
fn take_apart(context: &ServerContext) {
    // rmqtt spawns a task for each session that it drops, and panics where there is no runtime to do so.
    let Ok(runtime) = runtime::Builder::new_current_thread().build() else { return };
    let _entered = runtime.enter();
    if let Ok(mut shared) = context.extends.shared.try_write() {
        *shared = Box::new(DefaultShared::new(None));
    }
    if let Ok(mut router) = context.extends.router.try_write() {
        *router = Box::new(DefaultRouter::new(None));
    }
}

/// Where rmqtt listens.
struct Bound {
    listener: Listener,
    address: SocketAddr,
    /// `None`: the kernel cannot keep strangers away.
    private: Option<(Arc<PrivatePort>, Door)>,
}

async fn bind(options: &Options) -> rmqtt::Result<Bound> {
    if let Ok(bound) = bind_private(options).await {
        return Ok(bound);
    }
    let listener = listener(options, (Ipv4Addr::LOCALHOST, 0).into()).bind()?.tcp()?;
    Ok(Bound { address: listener.local_addr()?, listener, private: None })
}

async fn bind_private(options: &Options) -> rmqtt::Result<Bound> {
    let (port, mut door) = PrivatePort::open()?;
    let address = port.address();
    let listener = listener(options, address).reuseport(Some(true)).bind()?.tcp()?;
    door.bolt()?;
    // A machine may have only 127.0.0.1 of its network, or a packet filter that knows no other.
    tokio::time::timeout(TRIAL, port.connect()).await??;
    Ok(Bound { listener, address, private: Some((port, door)) })
}

fn listener(options: &Options, address: SocketAddr) -> Builder {
    Builder::new()
        .name("gateway")
        .laddr(address)
        .backlog(BACKLOG)
        .nodelay(true)
        .allow_anonymous(false)
        .handshake_timeout(HANDSHAKE)
        .max_handshaking_limit(MOST_HANDSHAKES)
        .max_packet_size(options.max_packet_size)
        .max_topic_levels(crate::topic::MAX_LEVELS)
        .max_inflight(options.max_inflight)
        .max_mqueue_len(options.max_queued)
        .max_topic_aliases(options.max_topic_aliases)
        .session_expiry_interval(options.session_expiry)
        .max_session_expiry_interval(options.session_expiry)
        // By default a message without an expiry is dropped after five minutes.
        .message_expiry_interval(Duration::ZERO)
        // A message is sent again to a client that comes back, and at no other time (MQTT 5, section 4.4).
        .message_retry_interval(Duration::ZERO)
}

/// A broker that has not started.
#[derive(Debug)]
pub struct StartError {
    what: &'static str,
    source: io::Error,
}

impl StartError {
    fn new(what: &'static str, source: io::Error) -> Self {
        Self { what, source }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the broker cannot start: {}: {}", self.what, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// How long what still runs at the end is waited for.
const SHUTDOWN: Duration = Duration::from_secs(1);
/// How long whoever has connected may take to log in. The gateway sends its CONNECT at once.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How many CONNECTs are looked at in one moment; more wait.
const MOST_HANDSHAKES: usize = 10_000;
const BACKLOG: i32 = 4096;
/// How long the first connection may take.
const TRIAL: Duration = Duration::from_secs(2);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);
