//! Which rules can be about a tag at all, so that a file with thousands of rules and tests is not looked through for each.

use std::collections::HashMap;

use super::selection::{Entity, Selection, TagId};
use super::truth::Truth;

/// The rules of a section by the tags that they name, on one side.
#[derive(Debug, Default)]
struct Side {
    named: HashMap<TagId, Vec<usize>>,
    /// Rules that hold or may hold every tag.
    every: Vec<usize>,
    all: usize,
}

impl Side {
    fn add(&mut self, rule: usize, selections: &[&Selection<'_>]) {
        self.all = rule + 1;
        if selections.iter().any(|s| s.every_tag() > Truth::No) {
            self.every.push(rule);
            return;
        }
        for tag in selections.iter().flat_map(|s| s.named_tags()) {
            let rules = self.named.entry(tag).or_default();
            if rules.last() != Some(&rule) {
                rules.push(rule);
            }
        }
    }

    fn about(&self, entity: &Entity<'_>) -> Vec<usize> {
        let Entity::Tag(tag) = entity else {
            return (0..self.all).collect();
        };
        let named = self.named.get(tag).map(Vec::as_slice).unwrap_or_default();
        named.iter().chain(&self.every).copied().collect()
    }

    fn count(&self, entity: &Entity<'_>) -> usize {
        match entity {
            Entity::Tag(tag) => self.named.get(tag).map_or(0, Vec::len) + self.every.len(),
            _ => self.all,
        }
    }
}

/// The rules of a section by both sides.
#[derive(Debug, Default)]
pub struct Index {
    sources: Side,
    destinations: Side,
}

impl Index {
    /// Adds the next rule.
    pub fn add(&mut self, rule: usize, source: &Selection<'_>, destinations: &[&Selection<'_>]) {
        self.sources.add(rule, &[source]);
        self.destinations.add(rule, destinations);
    }

    /// The numbers of the rules that can be about a pair: those of the side that has fewer.
    pub fn about(&self, source: &Entity<'_>, destination: &Entity<'_>) -> Vec<usize> {
        if self.sources.count(source) <= self.destinations.count(destination) {
            self.sources.about(source)
        } else {
            self.destinations.about(destination)
        }
    }
}
