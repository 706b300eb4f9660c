"""What each outcome and reason means, where it comes from, and what to do: the one table of these texts.

`proxyproto-rs explain` prints it, the broker's API and page show its remedies, and docs/reference/outcomes.md shows it
whole. The codes are those of the Rust core and of `proxyproto_rs.mqtt`; tests compare them. Words in backticks are code.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one code means."""

    code: str
    meaning: str
    cause: str
    remedy: str


def _table(*rows: tuple[str, str, str, str]) -> dict[str, Explanation]:
    return {row[0]: Explanation(*row) for row in rows}


ACCEPTED = _table(
    (
        "v1",
        "a version 1 header that names the client",
        "the proxy works as it should",
        "nothing",
    ),
    (
        "v2",
        "a version 2 header that names the client",
        "the proxy works as it should",
        "nothing",
    ),
    (
        "local",
        'a version 2 LOCAL header: the proxy speaks for itself. Connections that `health_checks="close"` closes count '
        "here too",
        "the proxy's health checks, mostly; or the proxy's frontend is a UNIX socket",
        'nothing. If your application should not see these connections, set `health_checks="close"`',
    ),
    (
        "unknown",
        "a header that names nobody: `PROXY UNKNOWN` of version 1, UNSPEC of version 2. As for `local`",
        "health checks in version 1, or a proxy that does not know its client",
        "nothing, if they are checks; else look at what stands in front of the proxy",
    ),
    (
        "direct",
        'served without a header: `untrusted="direct"`, `proxy_protocol="off"`, or "optional" and the first bytes are '
        "no header",
        "a client that came past the proxy, or a port that is set to serve without headers",
        'nothing, if that is meant. Else set `proxy_protocol="required"` and `untrusted="refuse"`',
    ),
)
"""The outcomes of connections that a Listener serves."""

REFUSED = _table(
    (
        "untrusted",
        "the peer is not one of the trusted proxies",
        "a stranger reached the port; a proxy is missing in `trusted=`; or the balancer keeps client addresses by itself",
        'add the address to `trusted=` if it is your proxy. Set `untrusted="direct"` if clients come straight to the port '
        "by design. Otherwise close the port to it",
    ),
    (
        "missing-header",
        "a trusted peer sent something else than a PROXY header",
        "the proxy is not told to send one, or the address is not the proxy's alone",
        "switch the header on in the proxy: `send-proxy-v2` on HAProxy's server line, `proxy_protocol on` in nginx, "
        "`proxy_protocol_v2.enabled=true` on an AWS NLB",
    ),
    (
        "malformed",
        "the header breaks the rules, or names an address that no client can have",
        "the sender breaks the protocol, or does not know its client's address",
        "read the byte and the code in the log line; `proxyproto-rs decode` explains the bytes. If the sender's TLVs are "
        "broken, `ignore_malformed_tlvs=True` accepts them; if it mixes IPv4 and IPv6, `allow_mixed_families=True` does",
    ),
    (
        "oversized",
        "the header is longer than `max_header_size=`, by default 4096 bytes",
        "long TLVs, such as a client's certificate; or a stranger's bytes",
        "raise `max_header_size=` if the proxy is right to send so much",
    ),
    (
        "bad-checksum",
        "the CRC32C in the header is not the checksum of the header",
        "something changed the header on its way, or the sender computes it wrongly",
        "look at what stands between the two. The checksum covers the whole header with its own four bytes zeroed",
    ),
    (
        "timeout",
        "no whole header came within `header_timeout=`, by default 5 s",
        "a peer that says nothing, or a proxy that sends its header with the first data while the server should speak first",
        "raise `header_timeout=`. A server that speaks first needs a proxy that sends the header at once",
    ),
    (
        "closed-early",
        "the peer closed or reset the connection before its header was whole",
        "checks without a header, scanners, or a proxy that gave up",
        "nothing, if it is rare. Otherwise look at the proxy's timeouts and checks",
    ),
    (
        "unexpected-header",
        'a header came to a port with `proxy_protocol="off"`',
        "the proxy sends a header, and the port does not expect one",
        'set `proxy_protocol="required"` and `trusted=`, or switch the header off in the proxy',
    ),
    (
        "version-not-allowed",
        "a header of a version that `versions=` leaves out",
        "the proxy sends the other version",
        "add the version to `versions=`, or let the proxy send the other one: `send-proxy` is version 1, `send-proxy-v2` "
        "version 2",
    ),
    (
        "denied",
        "the client is in `deny=`, or not in `allow=`",
        "a rule of yours",
        "nothing, if the rule is right. IPv4-mapped addresses match IPv4 entries",
    ),
    (
        "rate-limited",
        "the client opens connections faster than `max_rate_per_client=` allows",
        "one client reconnects in a loop; or all clients seem to be one, because the proxy names another proxy",
        "raise the limit, or let each proxy pass the client on",
    ),
    (
        "too-many-from-client",
        "the client has as many connections open as `max_connections_per_client=` allows",
        "one busy client, or many behind one address; or all seem to be one, because the proxy names another proxy",
        "raise the limit, or let each proxy pass the client on",
    ),
    (
        "too-many",
        "the listener has as many connections open as `max_connections=` allows",
        "more clients than expected, or connections that nobody closes",
        "raise the limit, or find out who keeps connections open: `listener.stats().open`",
    ),
    (
        "tls-required",
        "`require_tls=True`, and the header does not say that the client used TLS",
        "the client came without TLS, or the proxy does not tell. Version 1, nginx and an NLB never do",
        "in HAProxy use `send-proxy-v2-ssl` behind a bind line with `ssl`",
    ),
    (
        "cert-required",
        "`require_client_cert=True`, and the header does not say that the client's certificate was verified",
        "the client gave no certificate, the proxy could not verify it, or the proxy does not tell",
        "in HAProxy use `send-proxy-v2-ssl-cn` behind a bind line with `verify`",
    ),
    (
        "pending-overflow",
        "it had waited longest for its header when more than `max_pending=` waited, or when the process ran out of files",
        "many silent peers at once: an attack, or clients that come past the proxy",
        "set `trusted=`, lower `header_timeout=`, or raise `max_pending=` and `LimitNOFILE=` (`ulimit -n`)",
    ),
)
"""The outcomes of connections that a Listener refuses."""

LOGINS = _table(
    (
        "bad-credentials",
        "the user name or the password is wrong",
        "an old password in a device, or somebody who guesses",
        "give the client the right password. `auto_block` counts these",
    ),
    (
        "auth-error",
        "nobody could say whether the password is right",
        "an auth plugin or the service at `auth:` failed, or was too slow",
        "read the detail in the log: it names the plugin or the URL. Clients try again by themselves",
    ),
    (
        "blocked",
        "a block covers the client id, the user or the address",
        "an operator's block, or one of `auto_block`",
        "nothing, if that is right. Otherwise remove the block",
    ),
    (
        "access-denied",
        "an access rule, or a rule for publishing the will, refuses the client",
        "a rule of yours under `access:`",
        "nothing, if the rule is right. The detail names it",
    ),
    (
        "protocol-version",
        "this broker does not serve the client's version of MQTT",
        "a client of another version, or a probe",
        "let the client speak MQTT 3.1.1; a front of servers (`backend: upstream`) also serves 3.1 and 5",
    ),
    (
        "identifier-rejected",
        "the client id may not be used",
        "an empty client id with a session to keep, one that is too long, or one with control characters",
        "give the client an id of its own",
    ),
    (
        "malformed-connect",
        "the first packet is a broken CONNECT",
        "a client with a fault, or a stranger",
        "read the byte in the detail, and report it to the client's makers",
    ),
    (
        "no-connect",
        "the client connected and sent no CONNECT in time",
        "a scanner, a check of the port, or a client that is stuck",
        "nothing, if the address is a stranger's",
    ),
    (
        "packet-too-large",
        "the CONNECT is larger than the broker allows",
        "a long will, user name or password",
        "raise the limit in the configuration, if the client is right",
    ),
    (
        "upstream-unavailable",
        "no server behind the gateway could take the client",
        "the servers are down, or not reachable",
        "look at the servers, and at the log for why each was taken out",
    ),
    (
        "upstream-refused",
        "the server behind the gateway refused the login; its own answer was passed on",
        "wrong passwords or rules of that server",
        "look in the server's log. The client id and the time are the same there",
    ),
    (
        "broker-error",
        "the broker behind failed while it took the client in",
        "a fault of the broker or of a plugin",
        "read the detail in the log, and report a fault of ours",
    ),
    (
        "tls-failed",
        "the TLS handshake failed",
        "a client that speaks no TLS, does not trust the certificate, or has a wrong one of its own",
        "read the detail: it says what the client objected to, or what came in place of TLS",
    ),
    (
        "ws-failed",
        "the WebSocket handshake failed",
        "a wrong path, a missing subprotocol `mqtt`, an origin that is not allowed, or a plain HTTP client",
        "read the detail: it names what was missing",
    ),
    (
        "too-many-sessions",
        "as many sessions are open as the broker, or one address, may have",
        "more clients than expected, or many behind one address",
        "raise the limit in the configuration",
    ),
    (
        "busy",
        "more logins came than passwords can be checked in time, or the broker stops",
        "a reconnect storm, or somebody who guesses passwords",
        "nothing: clients come again. If it stays, block who floods",
    ),
)
"""Why the MQTT broker refuses a login. It also has the outcomes above, of the port that the client came through."""

ENDINGS = _table(
    ("disconnect", "the client said goodbye", "the client", "nothing"),
    (
        "connection-lost",
        "the connection ended without a goodbye",
        "the network, the client, or the proxy's timeouts",
        "if it is often the same time after the last packet, raise the proxy's client and server timeouts above the "
        "keep-alive",
    ),
    (
        "keep-alive",
        "the client was silent for one and a half times its keep-alive",
        "the client or the network is gone",
        "nothing, if it is rare",
    ),
    (
        "taken-over",
        "another login has the same client id",
        "the client came again before its old connection ended, or two clients share an id",
        "if it repeats every few seconds, give each client an id of its own",
    ),
    (
        "administrative",
        "an operator disconnected the client",
        "an operator; the audit log says who",
        "nothing",
    ),
    (
        "blocked",
        "a block covers the client since then",
        "an operator's block, or one of `auto_block`",
        "nothing",
    ),
    (
        "rate-limited",
        "the client sent faster than the configuration allows",
        "a client in a loop",
        "mend the client, or raise the limit",
    ),
    (
        "malformed-packet",
        "a packet of the client breaks the rules of MQTT",
        "a client with a fault",
        "read the detail, and report it to the client's makers",
    ),
    (
        "packet-too-large",
        "a packet is larger than the broker allows",
        "a large message",
        "raise the limit in the configuration, if the client is right",
    ),
    (
        "packet-timeout",
        "the rest of a packet did not come in time",
        "a client that is slow or hostile",
        "nothing, if it is rare",
    ),
    (
        "bad-topic",
        "the client published to a topic that nobody may publish to",
        "a wildcard in the topic, or one of the broker's own topics (`$SYS/...`)",
        "mend the client",
    ),
    ("second-connect", "a CONNECT came in an open session", "a client with a fault", "mend the client"),
    (
        "slow-consumer",
        "the client did not read what it subscribed to",
        "more messages than the client or its network can take",
        "let it subscribe to less, or raise the broker's buffers",
    ),
    (
        "broker-error",
        "the broker failed on something that the client sent",
        "a fault of the broker or of a plugin",
        "read the detail in the log, and report a fault of ours",
    ),
    (
        "upstream-closed",
        "the server behind the gateway closed the connection",
        "a limit or a rule of that server, or its stop",
        "look in the server's log",
    ),
    (
        "upstream-lost",
        "the connection to the server behind the gateway broke",
        "the server or the network between is gone",
        "look at the server",
    ),
    ("server-shutdown", "the broker stopped", "an operator", "nothing: clients come again"),
)
"""Why a session of the MQTT broker ended."""
