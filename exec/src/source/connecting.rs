//! The connections to the destination: made, lost, made again, or given up with it.

use super::link::{Connections, Link, Unconnected};
use super::{Driver, Input};
use crate::wire::WireError;
use crate::wire::dial::REFUSED;
use livemig_core::machine::Migration;
use livemig_core::vocabulary::{Event, Failure, Peer};
use std::time::Instant;

impl Driver {
    pub(super) fn connect(&mut self, again: bool) {
        let target = self.target.clone();
        if let Err(error) = target.connect_in_background(self.epochs.clone(), again, self.news.clone()) {
            self.warn(&format!("connecting: {error}"));
        }
    }

    pub(super) fn connected(&mut self, connections: Connections) {
        if self.dead || self.link.is_some() {
            return;
        }
        match Link::start(connections, self.session, &self.sender, &self.news, &self.small) {
            Ok(link) => self.link = Some(link),
            Err(error) => {
                self.warn(&format!("connecting: {error}"));
                self.connect(true);
                return;
            }
        }
        self.refused = None;
        if let Some(id) = self.reserving.take() {
            self.reserve(id);
        }
        self.give_all();
        self.serve_wanted();
        if self.down.take().is_some() {
            self.tell(Event::LinkRestored(Peer::Destination));
        }
    }

    pub(super) fn unconnected(&mut self, unconnected: &Unconnected) {
        if let Some(id) = self.reserving.take() {
            self.warn(&format!("no connection to the destination at {}: {}", self.target.address(), unconnected.why));
            self.dead = true;
            self.fail(id, Failure::Unreachable(Peer::Destination));
            return;
        }
        if !unconnected.refused {
            self.refused = None;
        } else if self.refused.get_or_insert_with(Instant::now).elapsed() > REFUSED && !self.dead {
            self.destination_dead();
        }
    }

    /// The connections of an epoch are of no use any more.
    pub(super) fn broken(&mut self, epoch: u32, connection: &'static str, why: &WireError) {
        if self.link.as_ref().is_none_or(|link| link.epoch != epoch) {
            return;
        }
        self.warn(&format!("{connection} connection lost in phase {}: {why}", self.conductor.phase().name()));
        self.link = None;
        self.down = Some(Instant::now());
        self.refused = None;
        self.tell(Event::LinkLost(Peer::Destination));
        self.connect(true);
    }

    /// The destination is gone for good, and everything that was asked of it fails.
    pub(super) fn destination_dead(&mut self) {
        if std::mem::replace(&mut self.dead, true) {
            return;
        }
        self.link = None;
        self.sender.fail_all(Failure::Unreachable(Peer::Destination));
        // The sends' ends come before the news that explains them, as everything in the queue of inputs.
        while let Ok(input) = self.inputs.try_recv() {
            match input {
                Input::Completed(event) => self.tell(event),
                Input::Stage(via, news) => self.stage_news(via, news),
                Input::Outside(_)
                | Input::Allow(_)
                | Input::Answer { .. }
                | Input::Connected(_)
                | Input::Unconnected(_)
                | Input::Broken { .. }
                | Input::Located { .. } => {}
            }
        }
        self.fail_orders();
        self.tell(Event::PeerDead { peer: Peer::Destination, recoverable: false });
    }

    pub(super) fn serve_wanted(&mut self) {
        if let Some(link) = &self.link
            && let Err(why) = link.serve_wanted()
        {
            let epoch = link.epoch;
            self.broken(epoch, "fault", &why);
        }
    }
}
