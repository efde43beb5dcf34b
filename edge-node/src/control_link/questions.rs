//! What the control plane asks over the feed, answered beside the feed: no question may hold up a line,
//! and none is worth more than a bounded part of this machine.

use super::report::Outbox;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Semaphore;
use verge_config::feed::{Answer, Asked, MAX_ANSWER_BYTES, Question, Told};

/// Questions that are worked on at a time; a dry run reads the whole store.
const AT_A_TIME: usize = 2;
/// Questions that wait for their turn, besides.
const WAITING_MAX: usize = 64;

/// Who knows the answers: in an edge, its cache and its routes.
pub trait Witness: Send + Sync + 'static {
    /// Answers. May take a while; it is called on a thread that may block.
    fn answer(&self, asked: Asked) -> Told;
}

/// Takes questions and puts the answers among what is to be reported.
pub(super) struct Questions {
    witness: RwLock<Option<Arc<dyn Witness>>>,
    outbox: Arc<Outbox>,
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

/// One question among those that wait.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Questions ===

impl Questions {
    pub(super) fn new(outbox: Arc<Outbox>) -> Questions {
        Questions {
            witness: RwLock::new(None),
            outbox,
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            waiting: Arc::default(),
        }
    }

    /// Names who answers; until then every question is refused.
    pub(super) fn put_to(&self, witness: Arc<dyn Witness>) {
        *self.witness.write() = Some(witness);
    }

    /// Takes a question; returns at once.
    pub(super) fn ask(&self, question: Question) {
        let Question { id, asked } = question;
        let Some(witness) = self.witness.read().clone() else {
            return self.refuse(id, "this edge answers no questions");
        };
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX + AT_A_TIME {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return self.refuse(id, "this edge has too many questions to answer; ask again");
        }
        let waiting = Waiting(Arc::clone(&self.waiting));
        let (turns, outbox) = (Arc::clone(&self.turns), Arc::clone(&self.outbox));
        tokio::spawn(async move {
            let _waiting = waiting;
            let Ok(_turn) = turns.acquire().await else { return };
            let told = tokio::task::spawn_blocking(move || witness.answer(asked)).await;
            let told = told.map(bounded).unwrap_or_else(|_| refused("the question failed here"));
            outbox.answer(Answer { id, told });
        });
    }

    /// Answers that there is no answer.
    pub(super) fn refuse(&self, id: String, reason: &str) {
        self.outbox.answer(Answer { id, told: refused(reason) });
    }
}

fn refused(reason: &str) -> Told {
    Told::Refused { reason: reason.to_owned() }
}

/// An answer that a report can carry.
fn bounded(told: Told) -> Told {
    let size = serde_json::to_vec(&told).map_or(usize::MAX, |json| json.len());
    if size <= MAX_ANSWER_BYTES {
        return told;
    }
    refused(&format!("the answer is longer than {MAX_ANSWER_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    /// Says how it is called, once it is let.
    struct Slow {
        begun: parking_lot::Mutex<Sender<()>>,
        go: parking_lot::Mutex<Receiver<()>>,
    }

    impl Witness for Slow {
        fn answer(&self, asked: Asked) -> Told {
            self.begun.lock().send(()).unwrap();
            self.go.lock().recv().unwrap();
            Told::Refused { reason: format!("{asked:?}") }
        }
    }

    struct Long;

    impl Witness for Long {
        fn answer(&self, _: Asked) -> Told {
            Told::Preview { matched: 1, samples: vec!["x".repeat(MAX_ANSWER_BYTES)] }
        }
    }

    fn question(n: usize) -> Question {
        Question { id: format!("q{n}"), asked: Asked::Unknown }
    }

    async fn answers(outbox: &Outbox, count: usize) -> Vec<Answer> {
        for _ in 0..1_000 {
            let told = outbox.waiting_answers();
            if told.len() >= count {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no {count} answers");
    }

    #[tokio::test]
    async fn nothing_waits_for_a_question_and_too_many_are_refused() {
        let outbox = Arc::new(Outbox::default());
        let questions = Questions::new(Arc::clone(&outbox));
        questions.ask(question(0));
        let told = outbox.waiting_answers();
        assert!(matches!(&told[0].told, Told::Refused { .. }), "nobody to ask: {told:?}");
        outbox.clear();
        let ((begun, began), (go, gone)) = (channel(), channel());
        questions.put_to(Arc::new(Slow { begun: begun.into(), go: gone.into() }));
        for n in 0..WAITING_MAX + AT_A_TIME + 3 {
            questions.ask(question(n));
        }
        let over = outbox.waiting_answers();
        let ids: Vec<_> = over.iter().map(|answer| answer.id.as_str()).collect();
        assert_eq!(ids, ["q66", "q67", "q68"]);
        // As many as may are under way, and no more.
        let begun = tokio::task::spawn_blocking(move || {
            for _ in 0..AT_A_TIME {
                began.recv().unwrap();
            }
            let early = began.recv_timeout(Duration::from_millis(50)).is_ok();
            (early, began)
        });
        let (early, began) = begun.await.unwrap();
        assert!(!early);
        outbox.clear();
        for _ in 0..WAITING_MAX + AT_A_TIME {
            go.send(()).unwrap();
        }
        assert_eq!(answers(&outbox, WAITING_MAX).await.len(), WAITING_MAX, "the oldest went");
        drop(began);
        assert_eq!(questions.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn an_answer_that_no_report_can_carry_is_none() {
        let outbox = Arc::new(Outbox::default());
        let questions = Questions::new(Arc::clone(&outbox));
        questions.put_to(Arc::new(Long));
        questions.ask(question(1));
        let told = answers(&outbox, 1).await;
        assert!(matches!(&told[0].told, Told::Refused { reason } if reason.contains("longer")));
    }
}
