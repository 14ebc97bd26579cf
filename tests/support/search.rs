//! What the models of interleavings share: how they are searched, and what they remember.

use stateright::{Checker, HasDiscoveries, Model};
use std::{cell::RefCell, collections::HashMap, fmt::Debug, hash::Hash, rc::Rc};

/// How many histories are remembered.
const HISTORIES_MAX: usize = 20_000;

type Known<Entry, Folded> = HashMap<Vec<Entry>, Rc<Folded>>;

/// What histories come to, under given rules: to fold one is most of what a state costs, and many states have
/// the same. Each thread has its own.
pub struct Histories<Rules, Entry, Folded>(RefCell<HashMap<Rules, Known<Entry, Folded>>>);

impl<Rules, Entry, Folded> Default for Histories<Rules, Entry, Folded> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<Rules: Copy + Eq + Hash, Entry: Clone + Eq + Hash, Folded: Default> Histories<Rules, Entry, Folded> {
    /// Returns what these entries come to. `add` is given what all but the last come to, and the entries.
    pub fn fold(&self, rules: Rules, entries: &[Entry], add: &impl Fn(&Folded, &[Entry]) -> Folded) -> Rc<Folded> {
        let Some((_, before)) = entries.split_last() else { return Rc::default() };
        if let Some(known) = self.0.borrow().get(&rules).and_then(|histories| histories.get(entries)) {
            return known.clone();
        }
        let folded = Rc::new(add(&self.fold(rules, before, add), entries));
        let mut all = self.0.borrow_mut();
        let histories = all.entry(rules).or_default();
        if histories.len() >= HISTORIES_MAX {
            histories.clear();
        }
        histories.insert(entries.to_vec(), folded.clone());
        folded
    }
}

/// Searches all interleavings: every property holds, and there was something to search.
pub fn holds_always<M>(name: &str, model: M, states_min: usize)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, {} of them different", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.unique_state_count() > states_min, "{name}");
}

/// Searches a model that leaves out a rule: it must break this property.
pub fn breaks<M>(what: &impl Debug, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discovery(property).map(|path| path.last_state().clone());
    println!("{what:?}: {found:?}");
    assert!(found.is_some(), "{what:?} went unnoticed");
}
