//! Who waits for which answer on one connection, and what they are told when it is over.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claudemesh_proto::BrokerFrame;
use claudemesh_proto::message::Ack;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ended::Ended;
use crate::error::{Error, Result};

/// An answer, or why the frame with its id could not be read as one.
pub(super) type Answer = Result<BrokerFrame>;

/// The callers waiting on one connection. Ids are numbers counted up, which are cheap to make, find and compare.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    acks: HashMap<u64, oneshot::Sender<Ack>>,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    ended: Option<Ended>,
}

impl Waiting {
    /// A place for the ack of one more message.
    pub(super) fn ack(&self) -> Result<(u64, oneshot::Receiver<Ack>)> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.open_state()?;
        let id = state.next_id();
        state.acks.insert(id, sender);
        Ok((id, receiver))
    }

    /// A place for the answer to one more request.
    pub(super) fn answer(&self) -> Result<(u64, oneshot::Receiver<Answer>)> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.open_state()?;
        let id = state.next_id();
        state.answers.insert(id, sender);
        Ok((id, receiver))
    }

    /// Waits for what a place was made for.
    pub(super) async fn within<T>(&self, what: &'static str, receiver: oneshot::Receiver<T>) -> Result<T> {
        self.within_time(what, receiver, ANSWER_TIMEOUT).await
    }

    /// The same for what takes longer.
    pub(super) async fn within_time<T>(
        &self,
        what: &'static str,
        receiver: oneshot::Receiver<T>,
        limit: Duration,
    ) -> Result<T> {
        match timeout(limit, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.over()),
            Err(_) => {
                self.forget_abandoned();
                Err(Error::TimedOut { what, seconds: limit.as_secs() })
            }
        }
    }

    pub(super) fn on_ack(&self, ack: Ack) {
        let waiter = ack.id.parse().ok().and_then(|id| self.lock().acks.remove(&id));
        if let Some(waiter) = waiter {
            // The waiter may have given up, which is its own affair.
            let _ = waiter.send(ack);
        }
    }

    pub(super) fn on_answer(&self, id: &str, answer: Answer) {
        let waiter = id.parse().ok().and_then(|id| self.lock().answers.remove(&id));
        if let Some(waiter) = waiter {
            let _ = waiter.send(answer);
        }
    }

    /// Tells everybody that nothing more will come. The first reason stands.
    pub(super) fn end(&self, ended: Ended) {
        let mut state = self.lock();
        state.ended.get_or_insert(ended);
        state.acks.clear();
        state.answers.clear();
    }

    pub(super) fn ended(&self) -> Option<Ended> {
        self.lock().ended.clone()
    }

    /// The error for a caller who finds the connection over.
    pub(super) fn over(&self) -> Error {
        Error::Ended(self.ended().unwrap_or(Ended::ByUs))
    }

    fn open_state(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        match &state.ended {
            Some(ended) => Err(Error::Ended(ended.clone())),
            None => Ok(state),
        }
    }

    /// Frees the places of those who gave up. That is rare, so this may look at them all.
    pub(super) fn forget_abandoned(&self) {
        let mut state = self.lock();
        state.acks.retain(|_, waiter| !waiter.is_closed());
        state.answers.retain(|_, waiter| !waiter.is_closed());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_id(&mut self) -> u64 {
        self.last_id = self.last_id.wrapping_add(1);
        self.last_id
    }
}

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(id: u64) -> Ack {
        Ack { id: id.to_string(), message_id: "m".into(), queued: true, error: None }
    }

    #[tokio::test]
    async fn answers_find_their_own_waiter_in_any_order() {
        let waiting = Waiting::default();
        let (first, first_ack) = waiting.ack().unwrap();
        let (second, second_ack) = waiting.ack().unwrap();
        waiting.on_ack(ack(second));
        waiting.on_ack(ack(99));
        waiting.on_ack(Ack { id: "not ours".into(), ..ack(0) });
        waiting.on_ack(ack(first));
        assert_eq!(waiting.within("ack", first_ack).await.unwrap(), ack(first));
        assert_eq!(waiting.within("ack", second_ack).await.unwrap(), ack(second));
    }

    #[tokio::test]
    async fn the_end_reaches_those_who_wait_and_those_who_come_later() {
        let waiting = Waiting::default();
        let (_, pending) = waiting.ack().unwrap();
        waiting.end(Ended::Silent);
        waiting.end(Ended::ByUs);
        assert!(matches!(waiting.within("ack", pending).await, Err(Error::Ended(Ended::Silent))));
        assert!(matches!(waiting.ack(), Err(Error::Ended(Ended::Silent))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_given_up_after_ten_seconds_and_leaves_nothing_behind() {
        let waiting = Waiting::default();
        let (_, pending) = waiting.answer().unwrap();
        let outcome = waiting.within("answer", pending).await;
        assert!(matches!(outcome, Err(Error::TimedOut { what: "answer", seconds: 10 })));
        assert!(waiting.lock().answers.is_empty());
    }
}
