//! The options of a listener. Their types allow no wrong values where possible; what they mean together is checked here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::address_set::AddressSet;
use crate::addresses::PeerAddr;
use crate::permit::{ClientLimits, PerClient};
use crate::setting::{Setting, Wording};
use crate::trust::{Approach, PeerPolicy};

/// The options of a listener. All of them can change while it runs.
///
/// ```
/// use proxyproto_acceptor::{AddressSet, Options, Untrusted};
///
/// let proxies: AddressSet = ["10.0.0.0/8".parse()?, "fd00::/8".parse()?].into_iter().collect();
/// let options = Options::default().trusted(proxies).untrusted(Untrusted::Direct).max_connections(10_000);
/// # Ok::<_, proxyproto_acceptor::NetworkError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Whether connections must, may or must not begin with a header (R3).
    pub proxy_protocol: ProxyProtocol,
    /// The proxies whose headers are believed (R4). `None` means that every peer is believed. The peers of a UNIX socket
    /// always are.
    pub trusted: Option<AddressSet>,
    /// What to do with peers that are not trusted.
    pub untrusted: Untrusted,
    /// Says for each peer how its connection begins. It replaces `proxy_protocol`, `trusted` and `untrusted`.
    pub policy: Option<PeerPolicy>,
    /// The allowed versions, the largest header, and what is tolerated.
    pub codec: proxyproto_codec::Options,
    /// How long a connection may take to send its whole header (R2).
    pub header_timeout: HeaderTimeout,
    /// How many connections may wait for their header. When one more comes, the one that has waited longest is closed. At
    /// least 1.
    pub max_pending: usize,
    /// Whether the kernel holds a connection back until its first bytes are there. With `None` it does so on TCP sockets that
    /// we bound, as long as every connection must begin with a header.
    pub defer_accept: Option<bool>,
    /// What to do with connections in which the proxy speaks for itself (LOCAL) or names nobody (UNKNOWN).
    pub health_checks: HealthChecks,
    /// The clients that are served. `None` means all.
    pub allow: Option<AddressSet>,
    /// The clients that are not served, even if `allow` contains them.
    pub deny: Option<AddressSet>,
    /// How many connections of clients may be open at once. `None` means no limit.
    pub max_connections: Option<usize>,
    /// The limits for each client.
    pub client_limits: ClientLimits,
    /// Whether to serve only clients that used TLS, according to the SSL TLV of the header.
    pub require_tls: bool,
    /// Whether to serve only clients whose certificate the proxy has verified, according to the SSL TLV of the header.
    pub require_client_cert: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proxy_protocol: ProxyProtocol::Required,
            trusted: None,
            untrusted: Untrusted::Refuse,
            policy: None,
            codec: proxyproto_codec::Options::default(),
            header_timeout: HeaderTimeout::default(),
            max_pending: 4096,
            defer_accept: None,
            health_checks: HealthChecks::Deliver,
            allow: None,
            deny: None,
            max_connections: None,
            client_limits: ClientLimits::new(PerClient::default()),
            require_tls: false,
            require_client_cert: false,
        }
    }
}

impl Options {
    /// Sets whether connections must, may or must not begin with a header.
    #[must_use]
    pub fn proxy_protocol(mut self, proxy_protocol: ProxyProtocol) -> Self {
        self.proxy_protocol = proxy_protocol;
        self
    }

    /// Sets the proxies whose headers are believed.
    #[must_use]
    pub fn trusted(mut self, trusted: AddressSet) -> Self {
        self.trusted = Some(trusted);
        self
    }

    /// Sets what to do with peers that are not trusted.
    #[must_use]
    pub fn untrusted(mut self, untrusted: Untrusted) -> Self {
        self.untrusted = untrusted;
        self
    }

    /// Sets a function that says for each peer how its connection begins. It replaces `proxy_protocol`, `trusted` and
    /// `untrusted`. The thread that accepts calls it for every connection, so it must not block.
    ///
    /// ```
    /// use proxyproto_acceptor::{Approach, Options};
    ///
    /// // Health checks of this machine come without a header, all other connections through a proxy.
    /// let options = Options::default().policy(|peer| match peer.ip() {
    ///     Some(ip) if ip.is_loopback() => Approach::Direct,
    ///     _ => Approach::Header,
    /// });
    /// ```
    #[must_use]
    pub fn policy(mut self, policy: impl Fn(&PeerAddr) -> Approach + Send + Sync + 'static) -> Self {
        self.policy = Some(PeerPolicy::new(policy));
        self
    }

    /// Sets the allowed versions, the largest header, and what is tolerated.
    #[must_use]
    pub fn codec(mut self, codec: proxyproto_codec::Options) -> Self {
        self.codec = codec;
        self
    }

    /// Sets how long a connection may take to send its whole header.
    #[must_use]
    pub fn header_timeout(mut self, header_timeout: HeaderTimeout) -> Self {
        self.header_timeout = header_timeout;
        self
    }

    /// Sets how many connections may wait for their header.
    #[must_use]
    pub fn max_pending(mut self, max_pending: usize) -> Self {
        self.max_pending = max_pending;
        self
    }

    /// Sets whether the kernel holds a connection back until its first bytes are there.
    #[must_use]
    pub fn defer_accept(mut self, defer_accept: bool) -> Self {
        self.defer_accept = Some(defer_accept);
        self
    }

    /// Sets what to do with connections in which the proxy speaks for itself or names nobody.
    #[must_use]
    pub fn health_checks(mut self, health_checks: HealthChecks) -> Self {
        self.health_checks = health_checks;
        self
    }

    /// Sets the clients that are served; no others are.
    #[must_use]
    pub fn allow(mut self, allow: AddressSet) -> Self {
        self.allow = Some(allow);
        self
    }

    /// Sets the clients that are not served.
    #[must_use]
    pub fn deny(mut self, deny: AddressSet) -> Self {
        self.deny = Some(deny);
        self
    }

    /// Sets how many connections of clients may be open at once.
    #[must_use]
    pub fn max_connections(mut self, max_connections: usize) -> Self {
        self.max_connections = Some(max_connections);
        self
    }

    /// Sets the limits for each client.
    #[must_use]
    pub fn client_limits(mut self, client_limits: ClientLimits) -> Self {
        self.client_limits = client_limits;
        self
    }

    /// Sets whether only clients that used TLS are served.
    #[must_use]
    pub fn require_tls(mut self, require_tls: bool) -> Self {
        self.require_tls = require_tls;
        self
    }

    /// Sets whether only clients with a certificate that the proxy has verified are served.
    #[must_use]
    pub fn require_client_cert(mut self, require_client_cert: bool) -> Self {
        self.require_client_cert = require_client_cert;
        self
    }

    /// Checks whether the options make sense, each alone and all together. Every function that takes options does so.
    ///
    /// # Errors
    ///
    /// [`OptionError`] for the first option that makes no sense.
    pub fn check(&self) -> Result<(), OptionError> {
        let everybody_may = self.policy.is_none() && self.trusted.is_none();
        if self.proxy_protocol == ProxyProtocol::Optional && everybody_may {
            return Err(OptionError::OptionalWithoutTrusted);
        }
        let limits = [
            (Setting::MaxPending, Some(self.max_pending)),
            (Setting::MaxConnections, self.max_connections),
            (Setting::MaxConnectionsPerClient, self.client_limits.limits().max_connections),
        ];
        match limits.into_iter().find(|(_, limit)| *limit == Some(0)) {
            Some((option, _)) => Err(OptionError::Zero { option }),
            None => Ok(()),
        }
    }

    /// Whether the kernel is to hold connections back until their first bytes are there.
    ///
    /// A peer that need not send a header need not speak first either. It would wait a second for nothing.
    pub(crate) fn defers_accept(&self, bound_by_us: bool) -> bool {
        let serves_strangers = match &self.policy {
            // A policy may let any peer begin without a header.
            Some(_) => true,
            None => self.trusted.is_some() && self.untrusted == Untrusted::Direct,
        };
        self.proxy_protocol == ProxyProtocol::Required
            && self.defer_accept.unwrap_or(bound_by_us && !serves_strangers)
    }
}

/// Options that make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionError {
    /// [`ProxyProtocol::Optional`] without `trusted` (R3, R4).
    OptionalWithoutTrusted,
    /// A limit of 0, with which nobody would be served.
    Zero {
        /// The limit.
        option: Setting,
    },
}

impl OptionError {
    /// The text with other names for the settings.
    #[must_use]
    pub fn text_in(&self, wording: Wording) -> String {
        match *self {
            Self::OptionalWithoutTrusted => format!(
                "{} is needed with {}: if everybody may send a header but need not, everybody can claim to be anybody",
                wording(Setting::Trusted),
                wording(Setting::ProxyProtocolOptional)
            ),
            Self::Zero { option } => format!("{} must be at least 1", wording(option)),
        }
    }
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text_in(Setting::in_rust))
    }
}

impl std::error::Error for OptionError {}

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$variant_doc])* $variant,)* }

        impl $type {
            /// All words, one for each value.
            pub const WORDS: &'static [&'static str] = &[$($word,)*];

            /// The word for this value.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(UnknownWord(Self::WORDS)),
                }
            }
        }
    };
}

words! {
    /// Whether connections begin with a header.
    ProxyProtocol {
        /// Every connection of a trusted peer begins with a header.
        Required = "required",
        /// The first byte of a trusted peer decides. This does not fit a server that speaks first, because it gets a
        /// connection only after that byte.
        Optional = "optional",
        /// No connection begins with a header. One that does is refused, so that the proxy's wrong configuration is noticed.
        Off = "off",
    }
}

words! {
    /// What to do with a peer that is not a trusted proxy.
    Untrusted {
        /// Close the connection.
        Refuse = "refuse",
        /// Serve it as an ordinary client. Its bytes are never read as a header.
        Direct = "direct",
    }
}

words! {
    /// What to do with connections in which the proxy speaks for itself or names nobody.
    HealthChecks {
        /// Serve them, with the real endpoints, so that a check can test the whole server.
        Deliver = "deliver",
        /// Count and close them: the check sees that the port is open.
        Close = "close",
    }
}

/// The error for a word that is none of an option's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord(&'static [&'static str]);

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be ")?;
        for (index, word) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { " or " };
            write!(f, "{separator}{word:?}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownWord {}

/// How long a header may take: more than 0 s and at most an hour; by default 5 s.
///
/// R2 asks for at least 3 s, which allows for one retransmission. Tests and local proxies may want less. With a long timeout
/// silent strangers hold places for nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeaderTimeout(Duration);

impl HeaderTimeout {
    /// A timeout of `seconds`, or `None` if that is not a number in the range.
    #[must_use]
    pub fn from_secs(seconds: f64) -> Option<Self> {
        // NaN is not in the range either.
        (seconds > 0.0 && seconds <= 3600.0).then(|| Self(Duration::from_secs_f64(seconds)))
    }

    /// The timeout as a duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl TryFrom<Duration> for HeaderTimeout {
    type Error = InvalidHeaderTimeout;

    fn try_from(time: Duration) -> Result<Self, InvalidHeaderTimeout> {
        Self::from_secs(time.as_secs_f64()).ok_or(InvalidHeaderTimeout(time))
    }
}

/// The error for a duration that is out of the range of a [`HeaderTimeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidHeaderTimeout(Duration);

impl fmt::Display for InvalidHeaderTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a header timeout must be greater than 0 and at most 3600 seconds, not {}",
            self.0.as_secs_f64()
        )
    }
}

impl std::error::Error for InvalidHeaderTimeout {}

impl Default for HeaderTimeout {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optional_needs_to_know_whom_to_believe() {
        let optional = Options { proxy_protocol: ProxyProtocol::Optional, ..Options::default() };
        assert_eq!(optional.check(), Err(OptionError::OptionalWithoutTrusted));
        assert_eq!(optional.trusted(AddressSet::new()).check(), Ok(()));
        assert_eq!(Options::default().check(), Ok(()));
        let policy = Options::default().policy(|_| Approach::Refuse);
        assert_eq!(policy.proxy_protocol(ProxyProtocol::Optional).check(), Ok(()));
    }

    #[test]
    fn a_limit_of_zero_serves_nobody() {
        let per_client =
            |max_connections| ClientLimits::new(PerClient::default().max_connections(max_connections));
        let cases = [
            ("Options::max_pending must be at least 1", Options::default().max_pending(0)),
            ("Options::max_connections must be at least 1", Options::default().max_connections(0)),
            (
                "PerClient::max_connections must be at least 1",
                Options::default().client_limits(per_client(0)),
            ),
        ];
        for (text, options) in cases {
            assert_eq!(options.check().unwrap_err().to_string(), text);
        }
        let text = OptionError::Zero { option: Setting::MaxPending }.text_in(|_| "max_pending=");
        assert_eq!(text, "max_pending= must be at least 1");
        let least = Options::default().max_pending(1).max_connections(1).client_limits(per_client(1));
        assert_eq!(least.check(), Ok(()));
    }

    #[test]
    fn accept_is_deferred_only_where_the_peer_speaks_first() {
        let options =
            |proxy_protocol, defer_accept| Options { proxy_protocol, defer_accept, ..Options::default() };
        let cases = [
            (ProxyProtocol::Required, None, true, true),
            (ProxyProtocol::Required, None, false, false),
            (ProxyProtocol::Required, Some(true), false, true),
            (ProxyProtocol::Required, Some(false), true, false),
            (ProxyProtocol::Optional, None, true, false),
            (ProxyProtocol::Off, Some(true), true, false),
        ];
        for (proxy_protocol, defer_accept, bound_by_us, expected) in cases {
            let options = options(proxy_protocol, defer_accept);
            assert_eq!(
                options.defers_accept(bound_by_us),
                expected,
                "{proxy_protocol:?} {defer_accept:?} {bound_by_us}"
            );
        }
        let strangers =
            Options { untrusted: Untrusted::Direct, trusted: Some(AddressSet::new()), ..Options::default() };
        assert!(!strangers.defers_accept(true));
        assert!(Options { trusted: None, ..strangers.clone() }.defers_accept(true));
        assert!(Options { defer_accept: Some(true), ..strangers }.defers_accept(true));
        assert!(!Options::default().policy(|_| Approach::Direct).defers_accept(true));
    }

    #[test]
    fn an_unknown_word_is_told_the_known_ones() {
        let error = "on".parse::<ProxyProtocol>().unwrap_err();
        assert_eq!(error.to_string(), "must be \"required\" or \"optional\" or \"off\"");
        for word in ProxyProtocol::WORDS {
            assert_eq!(word.parse::<ProxyProtocol>().unwrap().word(), *word);
        }
    }

    #[test]
    fn a_header_timeout_is_a_time() {
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, 3600.1] {
            assert_eq!(HeaderTimeout::from_secs(seconds), None, "{seconds}");
        }
        assert_eq!(HeaderTimeout::from_secs(0.25).unwrap().get(), Duration::from_millis(250));
        let hour = Duration::from_secs(3600);
        assert_eq!(HeaderTimeout::try_from(hour).unwrap().get(), hour);
        assert_eq!(
            HeaderTimeout::try_from(hour * 2).unwrap_err().to_string(),
            "a header timeout must be greater than 0 and at most 3600 seconds, not 7200"
        );
    }
}
