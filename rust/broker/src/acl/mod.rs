//! Who may publish to which topics, and subscribe to which: rules, of which the first that matches decides.

mod pattern;
pub use pattern::{Pattern, PatternError};
mod rule;
pub use rule::{Action, Actions, Rule, Subject};
mod tree;
mod who;

use pattern::FilterLevel;
use tree::Tree;

/// The rules. Without any, everything is allowed; with some, what none of them matches is denied.
///
/// A rule matches a PUBLISH if one of its patterns matches the topic. A rule that allows matches a SUBSCRIBE if one of its
/// patterns matches every topic of the filter. One that denies matches if a pattern and the filter have a topic in common: who
/// may not read `secret/#` may not subscribe to `#` either, unless an earlier rule allows it.
///
/// Topics that begin with `$` are matched by no wildcard in the first level, as MQTT has it.
///
/// A PUBLISH costs what its topic costs, not what all rules cost: they stand in a tree by the levels of their patterns.
///
/// ```
/// use proxyproto_broker::{Acl, Action, Rule, Subject};
///
/// let own = Rule { topics: vec!["dev/%c/#".parse()?], ..Rule::new(true) };
/// let acl = Acl::new(vec![own]);
/// let subject = Subject { client_id: "lamp", username: None, address: "192.0.2.7".parse()? };
/// assert!(acl.allows(&subject, Action::Publish, "dev/lamp/state"));
/// assert!(acl.allows(&subject, Action::Subscribe, "dev/lamp/#"));
/// assert!(!acl.allows(&subject, Action::Subscribe, "dev/+/state"));
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Acl {
    rules: Vec<Rule>,
    tree: Tree,
}

impl Acl {
    /// These rules, in this order.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let tree = Tree::new(&rules);
        Self { rules, tree }
    }

    /// Whether `subject` may publish to this topic, or subscribe to this filter.
    #[must_use]
    pub fn allows(&self, subject: &Subject<'_>, action: Action, topic: &str) -> bool {
        if self.rules.is_empty() {
            return true;
        }
        let rule = match action {
            Action::Publish => self.tree.first(&self.rules, subject, topic).and_then(|at| self.rules.get(at)),
            Action::Subscribe => self.first_for_filter(subject, topic),
        };
        rule.is_some_and(|rule| rule.allow)
    }

    /// Subscriptions are rare beside messages, so each rule is looked at.
    fn first_for_filter(&self, subject: &Subject<'_>, filter: &str) -> Option<&Rule> {
        let levels: Vec<_> = filter.split('/').map(FilterLevel::of).collect();
        self.rules.iter().filter(|rule| rule.is_for(subject, Action::Subscribe)).find(|rule| {
            let matches = |pattern: &Pattern| {
                if rule.allow { pattern.covers(subject, &levels) } else { pattern.overlaps(subject, &levels) }
            };
            rule.topics.is_empty() || rule.topics.iter().any(matches)
        })
    }
}

#[cfg(test)]
mod tests;
