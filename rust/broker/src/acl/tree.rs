//! The rules about PUBLISH by the levels of their topics.

use std::collections::HashMap;

use super::pattern::Level;
use super::rule::{Action, Rule, Subject};
use super::who::Who;
use crate::topic::is_of_the_server;

/// Each node stands at one depth, so a topic meets a node at most once: the cost of a topic is bounded by the size of the tree,
/// and in practice by the few nodes on its way.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
    /// The rules about all topics.
    everywhere: Who,
}

#[derive(Debug, Default)]
struct Node {
    texts: HashMap<Box<str>, Node>,
    /// Below `+` and templates.
    others: HashMap<Level, Node>,
    /// The rules whose topic ends here.
    here: Option<Box<Who>>,
    /// Those with `#` from here on.
    rest: Option<Box<Who>>,
}

impl Tree {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let mut tree = Self::default();
        for (at, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.actions.publish) {
            if rule.topics.is_empty() {
                tree.everywhere.add(at, rule);
            }
            for pattern in &rule.topics {
                let mut node = &mut tree.root;
                for level in &pattern.levels {
                    node = node.below(level);
                }
                let place = if pattern.has_rest { &mut node.rest } else { &mut node.here };
                place.get_or_insert_default().add(at, rule);
            }
        }
        tree
    }

    /// The number of the first rule that matches.
    pub(super) fn first(&self, rules: &[Rule], subject: &Subject<'_>, topic: &str) -> Option<usize> {
        let mut search = Search { rules, subject, first: rules.len() };
        search.ask(Some(&self.everywhere));
        search.walk(&self.root, Some(topic), true);
        (search.first < rules.len()).then_some(search.first)
    }
}

impl Node {
    fn below(&mut self, level: &Level) -> &mut Self {
        if let Level::Text(text) = level {
            return self.texts.entry(text.clone()).or_default();
        }
        self.others.entry(level.clone()).or_default()
    }
}

struct Search<'a> {
    rules: &'a [Rule],
    subject: &'a Subject<'a>,
    first: usize,
}

impl Search<'_> {
    fn ask(&mut self, who: Option<&Who>) {
        if let Some(at) = who.and_then(|who| who.first(self.rules, self.subject, Action::Publish, self.first))
        {
            self.first = at;
        }
    }

    /// Goes on with what is left of the topic: `None` behind its last level. Patterns are at most `MAX_LEVELS` deep.
    fn walk(&mut self, node: &Node, topic: Option<&str>, is_first: bool) {
        if !(is_first && topic.is_some_and(is_of_the_server)) {
            self.ask(node.rest.as_deref());
        }
        let Some(topic) = topic else {
            self.ask(node.here.as_deref());
            return;
        };
        let (level, rest) = match topic.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (topic, None),
        };
        if let Some(below) = node.texts.get(level) {
            self.walk(below, rest, false);
        }
        for (own, below) in &node.others {
            if own.matches(self.subject, level, is_first) {
                self.walk(below, rest, false);
            }
        }
    }
}
