//! The topics of a rule: a filter with placeholders for the client's own names.

use std::fmt;
use std::str::FromStr;

use super::Subject;
use crate::topic::{MAX_LEVELS, is_of_the_server};

/// Topics, as a filter of MQTT, in which `%c` stands for the client id, `%u` for the user name and `%%` for a percent sign.
///
/// A placeholder stands for text within one level. A name that has `+`, `#`, `/` or NUL in it, or is empty, fits nowhere; so no
/// client can choose an id with which `dev/%c/#` means more than one device. For the same reason no name makes a first level that
/// begins with `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    pub(super) levels: Vec<Level>,
    /// Whether a `#` follows.
    pub(super) has_rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Level {
    /// `+`
    Any,
    Text(Box<str>),
    /// At least one of its pieces is a placeholder.
    Template(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Piece {
    Text(Box<str>),
    ClientId,
    Username,
}

/// A level of the filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug)]
pub(super) enum FilterLevel<'a> {
    Any,
    Rest,
    Text(&'a str),
}

impl<'a> FilterLevel<'a> {
    pub(super) fn of(level: &'a str) -> Self {
        match level {
            "+" => Self::Any,
            "#" => Self::Rest,
            text => Self::Text(text),
        }
    }
}

impl Pattern {
    /// Whether each topic of the filter is one of the pattern's.
    pub(super) fn covers(&self, subject: &Subject<'_>, filter: &[FilterLevel<'_>]) -> bool {
        let mut filter = filter.iter();
        for (at, level) in self.levels.iter().enumerate() {
            let is_covered = match filter.next() {
                Some(FilterLevel::Text(text)) => level.matches(subject, text, at == 0),
                Some(FilterLevel::Any) => *level == Level::Any,
                Some(FilterLevel::Rest) | None => false,
            };
            if !is_covered {
                return false;
            }
        }
        match filter.next() {
            None => true,
            Some(FilterLevel::Text(text)) if self.levels.is_empty() && is_of_the_server(text) => false,
            Some(_) => self.has_rest,
        }
    }

    /// Whether a topic of the filter is one of the pattern's.
    pub(super) fn overlaps(&self, subject: &Subject<'_>, filter: &[FilterLevel<'_>]) -> bool {
        let mut filter = filter.iter();
        for (at, level) in self.levels.iter().enumerate() {
            match filter.next() {
                Some(FilterLevel::Text(text)) if level.matches(subject, text, at == 0) => {}
                Some(FilterLevel::Any) if level.can_be_met(subject, at == 0) => {}
                Some(FilterLevel::Rest) => {
                    let mut own = self.levels.iter().enumerate().skip(at);
                    return own.all(|(at, level)| level.can_be_met(subject, at == 0));
                }
                _ => return false,
            }
        }
        match filter.next() {
            // `a/#` matches `a` too.
            None | Some(FilterLevel::Rest) => true,
            Some(FilterLevel::Text(text)) if self.levels.is_empty() && is_of_the_server(text) => false,
            Some(_) => self.has_rest,
        }
    }
}

impl Level {
    /// Whether this level of a topic fits.
    pub(super) fn matches(&self, subject: &Subject<'_>, text: &str, is_first: bool) -> bool {
        match self {
            Self::Any => !(is_first && is_of_the_server(text)),
            Self::Text(own) => **own == *text,
            Self::Template(pieces) => {
                !(is_first && is_of_the_server(text)) && is_made_of(pieces, subject, text)
            }
        }
    }

    /// Whether a wildcard of a filter meets it.
    fn can_be_met(&self, subject: &Subject<'_>, is_first: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Text(own) => !(is_first && is_of_the_server(own)),
            Self::Template(pieces) => pieces.iter().all(|piece| piece.text(subject).is_some()),
        }
    }
}

impl Piece {
    fn text<'a>(&'a self, subject: &Subject<'a>) -> Option<&'a str> {
        let name = match self {
            Self::Text(text) => return Some(text),
            Self::ClientId => subject.client_id,
            Self::Username => subject.username?,
        };
        let is_plain = !name.is_empty() && !name.contains(['+', '#', '/', '\0']);
        is_plain.then_some(name)
    }
}

fn is_made_of(pieces: &[Piece], subject: &Subject<'_>, text: &str) -> bool {
    let mut rest = text;
    for piece in pieces {
        match piece.text(subject).and_then(|own| rest.strip_prefix(own)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.contains('\0') {
            return Err(PatternError::NoTopic);
        }
        let mut levels = Vec::new();
        let mut has_rest = false;
        for level in text.split('/') {
            if has_rest {
                return Err(PatternError::Wildcard);
            }
            match level {
                "+" => levels.push(Level::Any),
                "#" => has_rest = true,
                _ if level.contains(['+', '#']) => return Err(PatternError::Wildcard),
                _ => levels.push(level_of(level)?),
            }
        }
        if levels.len() > MAX_LEVELS {
            return Err(PatternError::TooDeep);
        }
        Ok(Self { levels, has_rest })
    }
}

fn level_of(text: &str) -> Result<Level, PatternError> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let name = match char {
            '%' => match chars.next() {
                Some('c') => Piece::ClientId,
                Some('u') => Piece::Username,
                Some('%') => {
                    plain.push('%');
                    continue;
                }
                _ => return Err(PatternError::Placeholder),
            },
            other => {
                plain.push(other);
                continue;
            }
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
        }
        pieces.push(name);
    }
    if pieces.is_empty() {
        return Ok(Level::Text(plain.into()));
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain.into()));
    }
    Ok(Level::Template(pieces))
}

/// A text that is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PatternError {
    /// It is empty, or has a NUL.
    NoTopic,
    /// A `+` that is not a whole level, or a `#` that is not the whole last one.
    Wildcard,
    /// A `%` in front of something else than `c`, `u` or `%`.
    Placeholder,
    /// It has more levels than topics may have.
    TooDeep,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTopic => f.write_str("a topic is not empty and has no NUL"),
            Self::Wildcard => f.write_str("`+` stands for a whole level, and `#` for all levels at the end"),
            Self::Placeholder => f.write_str(
                "after `%` stands `c` (the client id), `u` (the user name) or `%` (a percent sign)",
            ),
            Self::TooDeep => write!(f, "a topic has at most {MAX_LEVELS} levels"),
        }
    }
}

impl std::error::Error for PatternError {}
