//! Orders to the destination: each is given on every new connection until it is answered, or until it has failed.

use super::Driver;
use crate::wire::message::{Answer, Message, Order};
use livemig_core::pages::Bitmap;
use livemig_core::units::Bytes;
use livemig_core::vocabulary::{CmdId, Event, Failure, Peer, Reply, Sent};

/// An order without an answer.
#[derive(Debug)]
pub(super) struct Pending {
    order: Order,
    /// What it took on the wire when it was last given.
    wire: Bytes,
}

impl Driver {
    /// Tells the destination to do something.
    pub(super) fn order(&mut self, id: CmdId, order: Order) {
        self.orders.insert(id.0, Pending { order, wire: Bytes::ZERO });
        if self.dead {
            self.fail_order(id.0);
        } else if self.link.is_some() {
            self.give(id.0);
        }
    }

    /// Gives an order on the connection that there is.
    fn give(&mut self, id: u32) {
        let (Some(pending), Some(link)) = (self.orders.get_mut(&id), &mut self.link) else { return };
        match link.post(&Message::Order { id, order: pending.order.clone() }) {
            Ok(bytes) => {
                pending.wire = Bytes(bytes);
                if !matches!(pending.order, Order::State { .. }) {
                    self.control += bytes;
                }
            }
            Err(why) => {
                let epoch = link.epoch;
                self.broken(epoch, "control", &why);
            }
        }
    }

    /// Gives every order that has not been answered. Places first: what is staged has to be known before the guest starts, because what
    /// the destination has of it is older.
    pub(super) fn give_all(&mut self) {
        let mut ids: Vec<u32> = self.orders.keys().copied().collect();
        ids.sort_by_key(|id| (!matches!(self.orders[id].order, Order::Locate { .. }), *id));
        ids.into_iter().for_each(|id| self.give(id));
    }

    /// The destination has answered.
    pub(super) fn answered(&mut self, id: u32, answer: Answer) {
        // An order that was repeated is answered repeatedly.
        let Some(Pending { order, wire }) = self.orders.remove(&id) else { return };
        if matches!((&order, &answer), (Order::Gather { .. }, Answer::Done)) {
            // It has begun, and its end will be another answer.
            self.orders.insert(id, Pending { order, wire });
            return;
        }
        let id = CmdId(id);
        if let Answer::Refused(why) = &answer {
            self.warn(&format!("the destination refuses: {why}"));
        }
        match (order, answer) {
            (Order::Resume { .. }, Answer::Started { at }) => {
                // The guest does not come back to this memory.
                self.sender.memory.keep_still();
                self.done(id, Reply::Resumed { at });
            }
            (Order::Resume { .. }, _) => self.fail(id, Failure::NeverStarted),
            (Order::Abort, _) => self.done(id, Reply::Aborted),
            (Order::Reserve { .. }, Answer::Done) => self.done(id, Reply::Reserved),
            (Order::Prepare, Answer::Done) => self.done(id, Reply::Prepared),
            (Order::State { .. }, Answer::Done) => self.done(id, Reply::StateSent { wire }),
            (Order::Discard { pages }, Answer::Done) => self.done(id, Reply::Discarded(pages)),
            (Order::Redirect, Answer::Whole { at, missing: 0 }) => self.done(id, Reply::FaultsRedirected { at }),
            (Order::Redirect, Answer::Whole { missing, .. }) => {
                self.warn(&format!("the destination misses {missing} pages after everything was acknowledged"));
                self.fail(id, Failure::Refused(Peer::Destination));
            }
            (Order::Discard { pages }, _) => self.fail_with(id, Failure::Refused(Peer::Destination), pages),
            (Order::Serve, Answer::Done) => self.done(id, Reply::ServingFaults),
            (Order::Gather { .. }, Answer::Gathered { at }) => self.done(id, Reply::Gathered { at }),
            (Order::Locate { .. }, Answer::Done) => self.announced(),
            (Order::Locate { .. }, _) => {
                self.warn("the destination does not know what to do with what is staged");
                self.announced();
            }
            (Order::GoOn { .. }, Answer::Done) => self.handed_over = true,
            (Order::GoOn { .. }, _) => self.destination_dead(),
            (
                Order::Reserve { .. }
                | Order::Prepare
                | Order::State { .. }
                | Order::Redirect
                | Order::Serve
                | Order::Gather { .. },
                _,
            ) => {
                self.fail(id, Failure::Refused(Peer::Destination));
            }
        }
    }

    /// Fails an order that cannot be given, or whose answer will not come.
    fn fail_order(&mut self, id: u32) {
        let Some(Pending { order, .. }) = self.orders.remove(&id) else { return };
        let unreachable = Failure::Unreachable(Peer::Destination);
        match order {
            Order::Resume { .. } => self.fail(CmdId(id), Failure::AnswerLost),
            Order::Discard { pages } => self.fail_with(CmdId(id), unreachable, pages),
            Order::Reserve { .. }
            | Order::Prepare
            | Order::State { .. }
            | Order::Redirect
            | Order::Serve
            | Order::Gather { .. }
            | Order::Abort => {
                self.fail(CmdId(id), unreachable);
            }
            // No command waits for these.
            Order::Locate { .. } => self.announced(),
            Order::GoOn { .. } => {}
        }
    }

    pub(super) fn fail_orders(&mut self) {
        for id in self.orders.keys().copied().collect::<Vec<_>>() {
            self.fail_order(id);
        }
    }

    pub(super) fn done(&mut self, id: CmdId, reply: Reply<Bitmap>) {
        self.tell(Event::Done { id, reply });
    }

    pub(super) fn fail(&mut self, id: CmdId, failure: Failure) {
        self.fail_with(id, failure, Bitmap::default());
    }

    pub(super) fn fail_with(&mut self, id: CmdId, failure: Failure, unsent: Bitmap) {
        self.tell(Event::Failed { id, failure, sent: Sent::default(), unsent });
    }
}
