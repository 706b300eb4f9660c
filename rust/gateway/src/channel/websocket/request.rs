//! The upgrade request: HTTP/1.1, read strictly. No continuation lines, no body, and a bound for everything.

/// A request whose lines are whole and well formed.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The target, with its query.
    pub(super) target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
}

impl<'a> Request<'a> {
    /// Parses the lines, each with its CRLF, without the empty one at the end.
    ///
    /// Bytes that are not UTF-8 are refused: no header that we read has any.
    pub(super) fn parse(lines: &'a [u8]) -> Result<Self, String> {
        let text = str::from_utf8(lines).map_err(|_| "bytes that are not UTF-8")?;
        let mut lines = text.split_terminator("\r\n");
        let target = request_line(lines.next().unwrap_or_default())?;
        let headers = lines.map(header).collect::<Result<Vec<_>, _>>()?;
        if headers.len() > MAX_HEADERS {
            return Err(format!("more than {MAX_HEADERS} headers"));
        }
        let request = Self { target, headers };
        if request.all("transfer-encoding").next().is_some() {
            return Err("transfer codings aren't supported".into());
        }
        if request.all("content-length").any(|length| length.trim() != "0") {
            return Err("unsupported request body".into());
        }
        Ok(request)
    }

    /// The values of a header, in their order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value)
    }

    /// The value of a header that must be there once.
    pub(super) fn one(&self, name: &str) -> Result<&'a str, String> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err(format!("missing {name} header")),
            (Some(_), Some(_)) => Err(format!("invalid {name} header: multiple values")),
        }
    }

    /// The items of a header that is a list, from all its lines.
    pub(super) fn list(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name).flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
    }
}

/// The target of the request.
fn request_line(line: &str) -> Result<&str, String> {
    let parts: Vec<_> = line.split(' ').collect();
    let &[method, target, version] = parts.as_slice() else {
        return Err(format!("invalid HTTP request line: {}", shown(line)));
    };
    if method != "GET" {
        return Err(format!("unsupported HTTP method; expected GET; got {}", shown(method)));
    }
    if version != "HTTP/1.1" {
        return Err(format!("unsupported HTTP version; expected HTTP/1.1; got {}", shown(version)));
    }
    if !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("invalid HTTP request line: {}", shown(line)));
    }
    Ok(target)
}

/// The name and the value.
fn header(line: &str) -> Result<(&str, &str), String> {
    let (name, value) =
        line.split_once(':').ok_or_else(|| format!("invalid HTTP header line: {}", shown(line)))?;
    if !is_token(name.as_bytes()) {
        return Err(format!("invalid HTTP header name: {}", shown(name)));
    }
    let value = value.trim_matches([' ', '\t']);
    if value.bytes().any(|byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err(format!("invalid HTTP header value: {}", shown(value)));
    }
    Ok((name, value))
}

/// A token of RFC 9110, section 5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    let is_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_char)
}

/// A stranger's text, for people.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(100).flat_map(char::escape_debug).collect()
}

/// Browsers send about 20.
const MAX_HEADERS: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_by_name_in_any_case() {
        let lines = b"GET /mqtt?a=b HTTP/1.1\r\nHost: x\r\nconnection: keep-alive\r\nConnection:\tUpgrade, x \r\nA:\r\n";
        let request = Request::parse(lines).unwrap();
        assert_eq!(request.target, "/mqtt?a=b");
        assert_eq!(request.list("Connection").collect::<Vec<_>>(), ["keep-alive", "Upgrade", "x"]);
        assert_eq!((request.one("host"), request.one("a")), (Ok("x"), Ok("")));
        assert_eq!(request.one("Origin").unwrap_err(), "missing Origin header");
        assert_eq!(request.one("Connection").unwrap_err(), "invalid Connection header: multiple values");
    }

    #[test]
    fn what_is_no_request_says_why() {
        let many = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(129));
        let table: [(&[u8], &str); 16] = [
            (b"", "invalid HTTP request line: "),
            (b"HELO there\r\n", "invalid HTTP request line: HELO there"),
            (b"POST / HTTP/1.1\r\n", "unsupported HTTP method; expected GET; got POST"),
            (b"get / HTTP/1.1\r\n", "unsupported HTTP method; expected GET; got get"),
            (b"GET / HTTP/1.0\r\n", "unsupported HTTP version; expected HTTP/1.1; got HTTP/1.0"),
            (b"GET  / HTTP/1.1\r\n", "invalid HTTP request line: GET  / HTTP/1.1"),
            (b"GET http://x/ HTTP/1.1\r\n", "invalid HTTP request line: GET http://x/ HTTP/1.1"),
            (b"GET /\x01 HTTP/1.1\r\n", "invalid HTTP request line: GET /\\u{1} HTTP/1.1"),
            (b"GET / HTTP/1.1\r\nno colon\r\n", "invalid HTTP header line: no colon"),
            (b"GET / HTTP/1.1\r\na : b\r\n", "invalid HTTP header name: a "),
            (b"GET / HTTP/1.1\r\na: b\r\n c\r\n", "invalid HTTP header line:  c"),
            (b"GET / HTTP/1.1\r\na: b\nc: d\r\n", "invalid HTTP header value: b\\nc: d"),
            (b"GET / HTTP/1.1\r\na: \xff\r\n", "bytes that are not UTF-8"),
            (b"GET / HTTP/1.1\r\nContent-Length: 1\r\n", "unsupported request body"),
            (b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n", "transfer codings aren't supported"),
            (many.as_bytes(), "more than 128 headers"),
        ];
        for (lines, said) in table {
            assert_eq!(Request::parse(lines).unwrap_err(), said);
        }
    }
}
