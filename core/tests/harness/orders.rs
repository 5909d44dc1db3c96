//! Orders to the destination: each is given until it is answered, or until it has failed.

use livemig_core::units::Bytes;
use livemig_core::vocabulary::{CmdId, Failure, Peer, Reply};

use super::bugs::Bug;
use super::channel::Lane;
use super::scenario::AboutResume;
use super::wire::{Answer, Message, Order};
use super::world::World;

/// Ids of orders that are no commands of the machine.
const FENCE: u32 = 1 << 31;

impl World {
    /// Tells the destination to do something; it is told again until it answers.
    pub(crate) fn order(&mut self, id: CmdId, order: Order) {
        self.source.orders.insert(id, order.clone());
        if self.dead.is_some() {
            self.fail_order(id);
        } else {
            self.post(Lane::Orders, Message::Order { id, order });
        }
    }

    fn fail_order(&mut self, id: CmdId) {
        let Some(order) = self.source.orders.remove(&id) else { return };
        match order {
            Order::Fence(_) => {}
            Order::Resume => self.fail(id, self.no_answer_to_resume()),
            Order::Discard { .. } => {
                let unsent = self.source.stale.remove(&id).expect("kept with its order");
                self.fail_with(id, Failure::Unreachable(Peer::Destination), unsent);
            }
            Order::Reserve | Order::Prepare | Order::State(_) | Order::Redirect | Order::Serve | Order::Abort => {
                self.run.abort_failed |= matches!(order, Order::Abort);
                self.fail(id, Failure::Unreachable(Peer::Destination));
            }
        }
    }

    pub(crate) fn source_receives(&mut self, message: &Message) {
        match message {
            Message::Ack { frame } => {
                self.note(|| format!("ack {frame}"));
                self.acknowledged(*frame);
            }
            Message::Ask(page) => self.asked(*page),
            Message::LastAsk { id } => self.answered(*id, Answer::Done),
            Message::Answer { id, answer } => self.answered(*id, *answer),
            Message::Located { frame } => self.location_known(*frame),
            Message::Stored { via, frame, refused, unknown } => {
                self.note(|| format!("{via} has stored {frame} without {refused:?} and {unknown:?}"));
                self.stored(*via, *frame, refused, unknown);
            }
            other => unreachable!("{other:?} arrives at the source"),
        }
    }

    fn answered(&mut self, id: CmdId, answer: Answer) {
        // An order that was repeated is answered repeatedly.
        let Some(order) = self.source.orders.remove(&id) else { return };
        match (order, answer) {
            (Order::Reserve, Answer::Refused) => self.fail(id, Failure::Refused(Peer::Destination)),
            (Order::Reserve, _) => self.done(id, Reply::Reserved),
            (Order::Prepare, _) => self.done(id, Reply::Prepared),
            (Order::State(_), _) => self.done(id, Reply::StateSent { wire: Bytes(4096) }),
            (Order::Discard { .. }, _) => {
                let set = self.source.stale.remove(&id).expect("kept with its order");
                self.done(id, Reply::Discarded(set));
            }
            (Order::Resume, Answer::Started) => self.done(id, Reply::Resumed { at: self.now }),
            (Order::Resume, _) => self.fail(id, Failure::NeverStarted),
            (Order::Fence(resume), answer) => {
                if self.source.orders.contains_key(&resume) {
                    self.answered(resume, answer);
                }
            }
            (Order::Redirect, _) => self.done(id, Reply::FaultsRedirected { at: self.now }),
            (Order::Serve, _) => self.done(id, Reply::ServingFaults),
            (Order::Abort, _) => self.done(id, Reply::Aborted),
        }
    }

    /// The answer to `Resume` is waited for no longer.
    pub(crate) fn give_up_resume(&mut self, id: CmdId) {
        if self.source.orders.remove(&id).is_some() {
            self.fail(id, self.no_answer_to_resume());
        }
    }

    fn no_answer_to_resume(&self) -> Failure {
        if self.bug == Some(Bug::SourceResumedAfterSwitch) { Failure::NeverStarted } else { Failure::AnswerLost }
    }

    /// Connections are broken, or out of order for a while. An agent may report what they carried as failed; otherwise it is sent
    /// again on new ones.
    pub(crate) fn connection_lost(&mut self) {
        self.hurry_recalls();
        if self.choices.percent(self.timing.gives_up_percent) {
            self.coverage.gave_up += 1;
            self.new_epoch();
            self.fail_sends(Failure::Unreachable(Peer::Destination));
            self.fail_orders();
            return;
        }
        let resume = self.source.orders.iter().find(|(_, order)| matches!(order, Order::Resume)).map(|(&id, _)| id);
        if let Some(id) = resume {
            match self.timing.about_resume {
                AboutResume::Repeat => {}
                AboutResume::Ask => {
                    self.source.orders.insert(CmdId(id.0 | FENCE), Order::Fence(id));
                }
                AboutResume::GiveUp => self.give_up_resume(id),
            }
        }
    }

    pub(crate) fn reconnect(&mut self) {
        self.connection_lost();
        self.new_epoch();
        for (id, order) in self.source.orders.clone() {
            // Only the question about it is asked again: the destination must not start the guest after it has said that it never did.
            let asked_about = self.source.orders.contains_key(&CmdId(id.0 | FENCE));
            if !(matches!(order, Order::Resume) && asked_about) {
                self.post(Lane::Orders, Message::Order { id, order });
            }
        }
        self.go_on_sending();
    }

    pub(crate) fn hello(&mut self) {
        self.post(Lane::Orders, Message::Hello);
    }

    pub(crate) fn destination_failed(&mut self) {
        self.fail_sends(Failure::Unreachable(Peer::Destination));
        self.fail_orders();
        if let Some(gathering) = self.destination.places.gathering.take() {
            self.fail(gathering.id, Failure::Unreachable(Peer::Destination));
        }
    }

    fn fail_orders(&mut self) {
        for id in self.source.orders.keys().copied().collect::<Vec<_>>() {
            self.fail_order(id);
        }
        self.fail_redirect();
    }
}
