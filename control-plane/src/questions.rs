//! Questions to the edges: what is asked over the open feeds and answered in reports, in memory only
//! and no part of history. May not touch the store; knows nothing of what is asked.

use crate::auth::{NoRandomness, random_id};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::sync::watch;
use verge_config::feed::{Answer, Asked, FeedLine, Question, Told};

/// Open questions of all tenants and of one: each is worked on by every edge.
const MAX_OPEN: usize = 128;
const MAX_OPEN_OF_TENANT: usize = 8;

/// Why a question is not asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotAsked {
    /// The tenant has as many open as it may, or all tenants have.
    #[error("too many questions are open at the edges; wait for one to be answered")]
    TooMany,
    /// It cannot be named.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// It cannot be written as a line.
    #[error("the question cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// The open questions.
#[derive(Default)]
pub(crate) struct Questions {
    open: Mutex<BTreeMap<u64, Open>>,
    /// The number of the newest question; streams read on from where they are.
    newest: watch::Sender<u64>,
}

struct Open {
    id: String,
    tenant: String,
    line: Bytes,
    /// By the edge's id.
    answers: HashMap<String, Told>,
}

/// A question that was asked; it is closed when this is dropped.
pub(crate) struct Asking {
    questions: Arc<Questions>,
    number: u64,
    pub(crate) id: String,
}

// === impl Questions ===

impl Questions {
    /// Asks every edge whose feed is open, or opens while the question does.
    ///
    /// # Errors
    /// When too many are open.
    pub(crate) fn ask(
        self: &Arc<Self>,
        tenant: &str,
        prefix: &str,
        asked: Asked,
    ) -> Result<Asking, NotAsked> {
        let id = random_id(prefix)?;
        let question = FeedLine::Question(Question { id: id.clone(), asked });
        let mut line = serde_json::to_vec(&question)?;
        line.push(b'\n');
        let mut open = self.open.lock();
        let own = open.values().filter(|question| question.tenant == tenant).count();
        if open.len() >= MAX_OPEN || own >= MAX_OPEN_OF_TENANT {
            return Err(NotAsked::TooMany);
        }
        let number = *self.newest.borrow() + 1;
        let tenant = tenant.to_owned();
        let entry = Open { id: id.clone(), tenant, line: line.into(), answers: HashMap::new() };
        open.insert(number, entry);
        // Under the lock, so that numbers become known in their order.
        self.newest.send_replace(number);
        Ok(Asking { questions: Arc::clone(self), number, id })
    }

    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The lines of the open questions after `number`, each with its number.
    pub(crate) fn after(&self, number: u64) -> Vec<(u64, Bytes)> {
        let open = self.open.lock();
        let later = open.range(number.saturating_add(1)..);
        later.map(|(number, question)| (*number, question.line.clone())).collect()
    }

    /// Takes an edge's answers; its first to a question counts, and one to none that is open is
    /// dropped.
    pub(crate) fn answered(&self, edge: &str, answers: Vec<Answer>) {
        let mut open = self.open.lock();
        for answer in answers {
            if let Some(question) = open.values_mut().find(|question| question.id == answer.id) {
                question.answers.entry(edge.to_owned()).or_insert(answer.told);
            }
        }
    }
}

// === impl Asking ===

impl Asking {
    /// Whether an edge has answered.
    pub(crate) fn is_answered_by(&self, edge: &str) -> bool {
        let open = self.questions.open.lock();
        open.get(&self.number).is_some_and(|question| question.answers.contains_key(edge))
    }

    /// Asks every edge once more, under the same name; what has been answered stays.
    pub(crate) fn repeat(&mut self) {
        let mut open = self.questions.open.lock();
        let Some(question) = open.remove(&self.number) else { return };
        self.number = *self.questions.newest.borrow() + 1;
        open.insert(self.number, question);
        self.questions.newest.send_replace(self.number);
    }

    /// The answers so far, by the edges' ids.
    pub(crate) fn answers(&self) -> HashMap<String, Told> {
        let open = self.questions.open.lock();
        open.get(&self.number).map(|question| question.answers.clone()).unwrap_or_default()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.questions.open.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(questions: &Arc<Questions>, tenant: &str) -> Result<Asking, NotAsked> {
        questions.ask(tenant, "qst", Asked::Unknown)
    }

    fn answer(id: &str, matched: u64) -> Vec<Answer> {
        vec![Answer { id: id.to_owned(), told: Told::Preview { matched, samples: vec![] } }]
    }

    #[test]
    fn a_stream_is_told_what_is_open_and_new_to_it() {
        let questions = Arc::new(Questions::default());
        let watch = questions.watch();
        let first = ask(&questions, "a").unwrap();
        let second = ask(&questions, "a").unwrap();
        assert!(watch.has_changed().unwrap());
        let numbers = |after| questions.after(after).iter().map(|(n, _)| *n).collect::<Vec<_>>();
        assert_eq!(numbers(0), [1, 2]);
        assert_eq!(numbers(1), [2]);
        assert!(questions.after(0)[0].1.ends_with(b"\n"));
        drop(first);
        assert_eq!(numbers(0), [2], "what is closed is told to nobody");
        drop(second);
        assert_eq!(numbers(0), [0; 0]);
    }

    #[test]
    fn the_first_answer_of_an_edge_counts() {
        let questions = Arc::new(Questions::default());
        let asking = ask(&questions, "a").unwrap();
        questions.answered("e1", answer(&asking.id, 3));
        questions.answered("e1", answer(&asking.id, 4));
        questions.answered("e2", answer("another", 5));
        let told = Told::Preview { matched: 3, samples: vec![] };
        assert_eq!(asking.answers(), HashMap::from([("e1".to_owned(), told)]));
        assert!(asking.is_answered_by("e1") && !asking.is_answered_by("e2"));
        let id = asking.id.clone();
        drop(asking);
        questions.answered("e1", answer(&id, 3));
        assert!(questions.open.lock().is_empty());
    }

    #[test]
    fn what_is_repeated_is_told_to_everybody_once_more() {
        let questions = Arc::new(Questions::default());
        let mut asking = ask(&questions, "a").unwrap();
        let other = ask(&questions, "a").unwrap();
        questions.answered("e1", answer(&asking.id, 3));
        let before = questions.after(0)[0].1.clone();
        asking.repeat();
        assert_eq!(questions.after(2), [(3, before)]);
        assert!(asking.is_answered_by("e1"));
        drop((asking, other));
        assert!(questions.open.lock().is_empty());
    }

    #[test]
    fn a_tenant_has_a_few_open_and_all_together_not_many() {
        let questions = Arc::new(Questions::default());
        let mut open: Vec<Asking> =
            (0..MAX_OPEN_OF_TENANT).map(|_| ask(&questions, "a").unwrap()).collect();
        assert!(matches!(ask(&questions, "a"), Err(NotAsked::TooMany)));
        for n in 0..MAX_OPEN - MAX_OPEN_OF_TENANT {
            open.push(ask(&questions, &format!("t{n}")).unwrap());
        }
        assert!(matches!(ask(&questions, "b"), Err(NotAsked::TooMany)));
        open.pop();
        assert!(ask(&questions, "b").is_ok());
    }
}
