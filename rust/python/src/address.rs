//! Addresses as the socket module writes and takes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use codec::{Address, UnixAddress};
use proxyproto_codec as codec;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::{error, path};

/// The address in the form of `getpeername()`: `(host, port)`, `(host, port, 0, 0)`, a path, or the bytes of an
/// abstract name.
pub(crate) fn to_python<'py>(py: Python<'py>, address: &Address<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match address {
        Address::Inet(address) => (ipv4(py, *address.ip())?, address.port()).into_pyobject(py)?.into_any(),
        Address::Inet6(address) => {
            (ipv6(py, *address.ip())?, address.port(), 0, 0).into_pyobject(py)?.into_any()
        }
        Address::Unix(address) => unix(py, address)?,
    })
}

/// The IP address as an `ipaddress` object; `None` for a UNIX address.
pub(crate) fn ip_to_python<'py>(
    py: Python<'py>,
    address: &Address<'_>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    address.socket_addr().map(|address| address.ip().into_pyobject(py)).transpose()
}

/// An address that a caller gave for a header to be sent.
pub(crate) enum Given {
    Ip(SocketAddr),
    Unix(Vec<u8>),
}

impl Given {
    /// Takes what [`to_python`] gives. The host may also be an `ipaddress` object. `name` is the argument's, for the
    /// error.
    ///
    /// A host that is a name is an error: it is not looked up. Flow information and scope are ignored, because a header
    /// cannot carry them.
    pub(crate) fn from_python(name: &str, address: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(address) = address.cast::<PyTuple>() {
            return match address.len() {
                2 | 4 => {
                    let host = host(name, &address.get_item(0)?)?;
                    let port = &address.get_item(1)?;
                    let port = error::int_argument(&format!("the port of {name}"), port, "from 0 to 65535")?;
                    Ok(Self::Ip(SocketAddr::new(host, port)))
                }
                n => Err(PyValueError::new_err(format!(
                    "{name} must be (host, port) or (host, port, flowinfo, scope_id), not a tuple of {n}"
                ))),
            };
        }
        if let Ok(path) = address.cast::<PyBytes>() {
            return Ok(Self::Unix(path.as_bytes().to_vec()));
        }
        if address.is_instance_of::<PyString>() {
            return Ok(Self::Unix(path::from_python(address)?));
        }
        let wanted = "(host, port), (host, port, flowinfo, scope_id), or str or bytes for a UNIX path";
        Err(error::wrong_type(name, wanted, address))
    }

    /// The address for the codec. A UNIX name that starts with a NUL is an abstract one.
    pub(crate) fn address(&self) -> Address<'_> {
        match self {
            Self::Ip(address) => Address::from(*address),
            Self::Unix(name) if name.first() == Some(&0) => Address::Unix(UnixAddress::Abstract(name)),
            Self::Unix(path) => Address::Unix(UnixAddress::Path(path)),
        }
    }
}

fn host(name: &str, host: &Bound<'_, PyAny>) -> PyResult<IpAddr> {
    if let Ok(text) = host.cast::<PyString>() {
        return text.to_cow().ok().and_then(|text| text.parse().ok()).ok_or_else(|| not_an_ip(name, host));
    }
    if host.hasattr("packed")? {
        return host.extract();
    }
    Err(error::wrong_type(&format!("the host of {name}"), "str", host))
}

fn not_an_ip(name: &str, host: &Bound<'_, PyAny>) -> PyErr {
    match host.repr() {
        Ok(host) => {
            let text = format!("{name}: {host} is not an IPv4 or IPv6 address; names are not looked up");
            PyValueError::new_err(text)
        }
        Err(error) => error,
    }
}

/// A path as `str`, decoded like `os.fsdecode` does; a name of the abstract namespace as `bytes` with its leading NUL.
fn unix<'py>(py: Python<'py>, address: &UnixAddress<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match address {
        UnixAddress::Path(path) => path::to_python(py, path)?,
        UnixAddress::Abstract(name) => PyBytes::new(py, name).into_any(),
    })
}

pub(crate) fn ipv4(py: Python<'_>, ip: Ipv4Addr) -> PyResult<Bound<'_, PyString>> {
    let mut text = Text::<16>::new();
    text.ipv4(ip);
    text.to_python(py)
}

pub(crate) fn ipv6(py: Python<'_>, ip: Ipv6Addr) -> PyResult<Bound<'_, PyString>> {
    let mut text = Text::<48>::new();
    text.ipv6(ip);
    text.to_python(py)
}

/// Up to `N` ASCII characters. Writing addresses into it without `fmt` halves the time of `source`.
struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    fn to_python<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyString>> {
        PyString::from_bytes(py, self.bytes.get(..self.len).unwrap_or_default())
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn ipv4(&mut self, ip: Ipv4Addr) {
        for octet in ip.octets() {
            let (digits, len) = DIGITS.get(usize::from(octet)).copied().unwrap_or_default();
            self.append(digits, len);
        }
        self.len -= 1; // the last dot
    }

    /// RFC 5952: `::` stands for the longest run of two or more zero groups, or the first of them. IPv4-mapped
    /// addresses are dotted.
    fn ipv6(&mut self, ip: Ipv6Addr) {
        if let Some(mapped) = ip.to_ipv4_mapped() {
            for byte in *b"::ffff:" {
                self.push(byte);
            }
            return self.ipv4(mapped);
        }
        let groups = ip.segments();
        let zeros = longest_zero_run(groups);
        for (index, group) in groups.into_iter().enumerate() {
            if !zeros.contains(&index) {
                self.group(group);
            } else if index == zeros.start {
                self.push(b':');
                if index == 0 {
                    self.push(b':');
                }
            }
        }
        if zeros.end < groups.len() {
            self.len -= 1; // the last colon
        }
    }

    /// Writes up to four digits and a colon.
    fn group(&mut self, group: u16) {
        let [high, low] =
            group.to_be_bytes().map(|byte| HEX.get(usize::from(byte)).copied().unwrap_or_default());
        let digits = [high[0], high[1], low[0], low[1]];
        // Leading zeros are left out, but the last digit always stays.
        let zeros = (group | 1).leading_zeros() / 4;
        let len = 4 - zeros;
        let digits = u64::from(u32::from_le_bytes(digits) >> (8 * zeros));
        let text = digits | u64::from(b':') << (8 * len);
        self.append(text.to_le_bytes(), len as usize + 1);
    }

    /// Appends the first `len` bytes. The next call overwrites the others.
    fn append<const M: usize>(&mut self, bytes: [u8; M], len: usize) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + M) {
            room.copy_from_slice(&bytes);
            self.len += len;
        }
    }
}

/// Each octet in decimal with a dot behind it, and how many of the four bytes that takes.
#[expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "the compiler runs it, to 255")]
static DIGITS: [([u8; 4], usize); 256] = {
    let mut digits = [([0; 4], 0); 256];
    let mut index = 0;
    while index < digits.len() {
        let octet = index as u8;
        let (hundreds, tens, ones) = (b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10);
        digits[index] = match octet {
            100.. => ([hundreds, tens, ones, b'.'], 4),
            10.. => ([tens, ones, b'.', 0], 3),
            _ => ([ones, b'.', 0, 0], 2),
        };
        index += 1;
    }
    digits
};

/// Each byte in two hexadecimal digits.
#[expect(clippy::indexing_slicing, reason = "the compiler runs it, to 255")]
static HEX: [[u8; 2]; 256] = {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut hex = [[0; 2]; 256];
    let mut byte = 0;
    while byte < hex.len() {
        hex[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0xf]];
        byte += 1;
    }
    hex
};

/// The first of the longest runs of zero groups. Empty unless the run has two groups or more.
fn longest_zero_run(groups: [u16; 8]) -> Range<usize> {
    let bit_if_zero = |(index, group)| u32::from(group == 0) << index;
    let zeros: u32 = groups.into_iter().enumerate().map(bit_if_zero).sum();
    // In each round, a bit of `longer` is set where a run of `len` + 1 groups starts.
    let (mut starts, mut longer, mut len) = (0, zeros, 0);
    while longer != 0 {
        starts = longer;
        longer &= longer >> 1;
        len += 1;
    }
    let start = starts.trailing_zeros() as usize;
    if len < 2 { 0..0 } else { start..start + len }
}
