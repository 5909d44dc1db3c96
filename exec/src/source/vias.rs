//! The source's dealings with intermediaries: connections there, and what the destination is told of what they have.

use super::Driver;
use super::link::{Target, Unconnected};
use super::stage_link::{self, StageLink, StageNews};
use crate::wire::WireError;
use crate::wire::dial::{REFUSED, RETRY, Way};
use crate::wire::fingerprint::Fingerprints;
use crate::wire::message::Order;
use livemig_core::ledger::Observation;
use livemig_core::machine::{Migration, Outcome};
use livemig_core::push_plan::Extent;
use livemig_core::units::Rate;
use livemig_core::vocabulary::{CmdId, Event, Failure, Peer};
use std::collections::VecDeque;
use std::time::Instant;

/// Announcements of places without an answer: what is staged meanwhile is announced together.
const ANNOUNCING: usize = 4;
/// Runs of pages in an announcement; a frame holds many more.
const MOST_RUNS: usize = 100_000;
/// Orders that are no commands of the migration have ids from here on.
pub(super) const OWN: u32 = 1 << 31;
/// The order to go on without the source.
pub(super) const HAND_OVER: u32 = u32::MAX;

/// The intermediaries of a migration.
#[derive(Debug, Default)]
pub(super) struct Vias {
    hosts: Vec<Via>,
    /// They are asked for pages by these.
    fingerprints: Option<Fingerprints>,
    /// A reservation that waits for answers of these intermediaries.
    reserving: Option<(CmdId, Vec<u16>)>,
    /// Places that the destination has not been told.
    unannounced: VecDeque<(Vec<u16>, Vec<Extent>)>,
    /// Orders that tell it.
    announcing: usize,
    next: u32,
    /// The guest is being started at the destination, or has been.
    open: bool,
    /// The order to redirect faults, which waits until the destination knows every place.
    redirecting: Option<CmdId>,
    /// The destination has been told not to ask, and not since then to ask again.
    redirected: bool,
}

#[derive(Debug)]
struct Via {
    /// Where the source reaches it, and where the destination does.
    way: Way,
    fetch: Way,
    standing: Standing,
    epoch: u32,
    /// It has had pages of this migration.
    used: bool,
    /// Since when every attempt has been refused.
    refused: Option<Instant>,
}

#[derive(Debug)]
enum Standing {
    /// Nobody has asked for it.
    Idle,
    Connecting,
    /// An attempt is due.
    Waiting(Instant),
    /// It has been asked to keep pages.
    Asked(StageLink),
    Up(StageLink),
    Gone,
}

impl Vias {
    /// The intermediaries that are reached like this, as seen from the source and from the destination; with `fingerprints`, they are asked
    /// for pages by their content.
    pub(super) fn of(ways: Vec<(Way, Way)>, fingerprints: Option<Fingerprints>) -> Vias {
        let via = |(way, fetch): (Way, Way)| Via { way, fetch, standing: Standing::Idle, epoch: 0, used: false, refused: None };
        Vias { hosts: ways.into_iter().map(via).collect(), fingerprints, next: OWN, ..Vias::default() }
    }

    /// How the destination reaches them.
    pub(super) fn fetched_from(&self) -> Vec<Way> {
        self.hosts.iter().map(|via| via.fetch.clone()).collect()
    }

    fn get(&mut self, via: u16) -> Option<&mut Via> {
        self.hosts.get_mut(usize::from(via))
    }

    /// When an attempt to connect is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = |via: &Via| match via.standing {
            Standing::Waiting(at) => Some(at),
            Standing::Idle | Standing::Connecting | Standing::Asked(_) | Standing::Up(_) | Standing::Gone => None,
        };
        self.hosts.iter().filter_map(due).min()
    }
}

impl Driver {
    /// Asks these intermediaries for room, and then the destination.
    pub(super) fn reserve_all(&mut self, id: CmdId, via: Vec<u16>) {
        if let Some(&gone) = via.iter().find(|&&v| self.vias.get(v).is_none_or(|via| matches!(via.standing, Standing::Gone))) {
            return self.fail(id, Failure::Unreachable(Peer::Intermediary(gone)));
        }
        self.vias.reserving = Some((id, via.clone()));
        for v in via {
            if self.vias.get(v).is_some_and(|via| matches!(via.standing, Standing::Idle)) {
                self.connect_stage(v);
            }
        }
        self.reserve_next();
    }

    /// Once all intermediaries have room, the destination is asked.
    fn reserve_next(&mut self) {
        let Some((id, via)) = self.vias.reserving.take() else { return };
        let up = |v: &u16| matches!(self.vias.hosts.get(usize::from(*v)), Some(Via { standing: Standing::Up(_), .. }));
        if via.iter().all(up) {
            self.reserving = Some(id);
            if self.link.is_some() {
                self.reserving = None;
                self.reserve(id);
            } else {
                self.connect(false);
            }
        } else {
            self.vias.reserving = Some((id, via));
        }
    }

    /// A reservation that waits for this intermediary fails.
    fn reserve_failed(&mut self, v: u16, failure: Failure) {
        if let Some((id, _)) = self.vias.reserving.take_if(|(_, via)| via.contains(&v)) {
            self.fail(id, failure);
        }
    }

    fn connect_stage(&mut self, v: u16) {
        let (key, session, news) = (self.target.key, self.session, self.news.clone());
        let security = self.target.security.clone();
        let Some(via) = self.vias.get(v) else { return };
        via.epoch += 1;
        via.standing = Standing::Connecting;
        let target = Target { ways: vec![via.way.clone()], security, key, session, streams: 0 };
        if let Err(error) = stage_link::connect_in_background(target, v, via.epoch, news) {
            self.warn(&format!("connecting: {error}"));
            self.stage_again(v);
        }
    }

    /// Another attempt is made in a moment.
    fn stage_again(&mut self, v: u16) {
        if let Some(via) = self.vias.get(v) {
            via.standing = Standing::Waiting(Instant::now() + RETRY);
        }
    }

    /// Makes the attempts that are due.
    pub(super) fn look_around_vias(&mut self) {
        let now = Instant::now();
        for v in (0..).take(self.vias.hosts.len()) {
            if matches!(self.vias.hosts[usize::from(v)].standing, Standing::Waiting(at) if at <= now) {
                self.connect_stage(v);
            }
        }
    }

    pub(super) fn stage_news(&mut self, v: u16, news: StageNews) {
        match news {
            StageNews::Connected { epoch, stream } => self.stage_connected(v, epoch, stream),
            StageNews::Unconnected(why) => self.stage_unconnected(v, &why),
            StageNews::Kept { epoch, room, known } => self.stage_kept(v, epoch, room, known),
            StageNews::Holds(bytes) => self.observe(Observation::Staged { via: v, bytes }),
            StageNews::Broken { epoch, why } => self.stage_broken(v, epoch, &why),
        }
    }

    fn stage_connected(&mut self, v: u16, epoch: u32, stream: std::net::TcpStream) {
        let Some(via) = self.vias.hosts.get_mut(usize::from(v)) else { return };
        if via.epoch != epoch || !matches!(via.standing, Standing::Connecting) {
            return;
        }
        via.refused = None;
        match StageLink::open((v, epoch, self.session), self.vias.fingerprints, stream, &self.sender, &self.news, &self.small) {
            Ok(link) => via.standing = Standing::Asked(link),
            Err(error) => {
                self.warn(&format!("intermediary {v}: {error}"));
                self.stage_again(v);
            }
        }
    }

    fn stage_unconnected(&mut self, v: u16, unconnected: &Unconnected) {
        let Some(via) = self.vias.get(v).filter(|via| matches!(via.standing, Standing::Connecting)) else { return };
        let (used, address) = (via.used, via.way.to);
        if !used {
            self.warn(&format!("no connection to intermediary {v} at {address}: {}", unconnected.why));
            self.stage_gone(v);
            return;
        }
        if !unconnected.refused {
            via.refused = None;
        } else if via.refused.get_or_insert_with(Instant::now).elapsed() > REFUSED {
            self.stage_gone(v);
            return;
        }
        self.stage_again(v);
    }

    /// An intermediary keeps pages, or has no room for any.
    fn stage_kept(&mut self, v: u16, epoch: u32, room: bool, known: bool) {
        let Some(via) = self.vias.hosts.get_mut(usize::from(v)).filter(|via| via.epoch == epoch) else { return };
        let Standing::Asked(mut link) = std::mem::replace(&mut via.standing, Standing::Idle) else { return };
        if !room {
            self.reserve_failed(v, Failure::Refused(Peer::Intermediary(v)));
            return;
        }
        if via.used && !known {
            // It is another one in the old one's place.
            self.stage_gone(v);
            return;
        }
        let again = std::mem::replace(&mut via.used, true);
        match link.begin(self.session, &self.news, &self.small) {
            Ok(()) => via.standing = Standing::Up(link),
            Err(error) => {
                self.warn(&format!("intermediary {v}: {error}"));
                self.stage_again(v);
                return;
            }
        }
        if again {
            self.tell(Event::LinkRestored(Peer::Intermediary(v)));
        }
        self.reserve_next();
    }

    /// The connection to an intermediary is of no use any more; what it has it keeps.
    fn stage_broken(&mut self, v: u16, epoch: u32, why: &WireError) {
        let Some(via) = self.vias.hosts.get_mut(usize::from(v)).filter(|via| via.epoch == epoch) else { return };
        let was_up = match &via.standing {
            Standing::Up(_) => true,
            Standing::Asked(_) => false,
            Standing::Idle | Standing::Connecting | Standing::Waiting(_) | Standing::Gone => return,
        };
        let phase = self.conductor.phase().name();
        self.warn(&format!("connection to intermediary {v} lost in phase {phase}: {why}"));
        self.stage_again(v);
        if was_up {
            self.tell(Event::LinkLost(Peer::Intermediary(v)));
        }
    }

    /// An intermediary is gone for good, with all that it has.
    pub(super) fn stage_gone(&mut self, v: u16) {
        let Some(via) = self.vias.get(v) else { return };
        if matches!(std::mem::replace(&mut via.standing, Standing::Gone), Standing::Gone) {
            return;
        }
        self.sender.stage_disconnected(v, true);
        self.reserve_failed(v, Failure::Unreachable(Peer::Intermediary(v)));
        self.tell(Event::PeerDead { peer: Peer::Intermediary(v), recoverable: false });
    }

    /// The guest is about to be started at the destination: it is told where the pages are that it has not got.
    pub(super) fn announce_all(&mut self) {
        if self.vias.hosts.is_empty() {
            return;
        }
        self.vias.open = true;
        let places = self.sender.places();
        self.vias.unannounced.clear();
        for (via, extents) in places {
            for part in extents.chunks(MOST_RUNS) {
                self.announce(via.clone(), part);
            }
        }
    }

    /// Pages are staged. Before the guest starts at the destination that is the source's business alone.
    pub(super) fn located(&mut self, via: Vec<u16>, extents: Vec<Extent>) {
        if !self.vias.open {
            return;
        }
        match self.vias.unannounced.back_mut() {
            Some((same, more)) if *same == via && more.len() + extents.len() < MOST_RUNS => more.extend(extents),
            _ => self.vias.unannounced.push_back((via, extents)),
        }
        self.announce_next();
    }

    fn announce_next(&mut self) {
        while self.vias.announcing < ANNOUNCING
            && let Some((via, extents)) = self.vias.unannounced.pop_front()
        {
            self.announce(via, &extents);
        }
        self.redirect_when_announced();
    }

    fn announce(&mut self, via: Vec<u16>, extents: &[Extent]) {
        let runs = extents.iter().map(|e| (e.first.0, e.pages)).collect();
        let id = CmdId(self.vias.next);
        self.vias.next += 1;
        self.vias.announcing += 1;
        self.order(id, Order::Locate { via, runs });
    }

    /// The destination knows some places more, or is gone.
    pub(super) fn announced(&mut self) {
        self.vias.announcing = self.vias.announcing.saturating_sub(1);
        self.announce_next();
    }

    /// The destination is to ask no more, once it knows every place.
    pub(super) fn redirect(&mut self, id: CmdId) {
        self.vias.redirecting = Some(id);
        self.redirect_when_announced();
    }

    fn redirect_when_announced(&mut self) {
        if self.vias.announcing == 0
            && self.vias.unannounced.is_empty()
            && let Some(id) = self.vias.redirecting.take()
        {
            self.vias.redirected = true;
            self.order(id, Order::Redirect);
        }
    }

    /// Whether the destination has to be told that it may ask again.
    pub(super) fn is_to_serve_again(&mut self) -> bool {
        std::mem::take(&mut self.vias.redirected)
    }

    /// What only a failed intermediary had is the migration's again.
    pub(super) fn reclaim(&mut self, id: CmdId, via: u16) {
        let reclaimed = self.sender.reclaim(via);
        self.reply(id, reclaimed.map(livemig_core::vocabulary::Reply::Reclaimed));
    }

    /// Lets the destination fetch. Once the source is free that is no business of its any more: whoever goes on orders it.
    pub(super) fn gather(&mut self, id: CmdId, limit: Option<Rate>) {
        if self.conductor.remainder().is_none() {
            self.order(id, Order::Gather { limit });
        }
    }

    /// The source is free, and something is left to do: the destination does that without it.
    pub(super) fn hand_over(&mut self) {
        let Some(remainder) = self.conductor.remainder().filter(|_| !self.handing_over) else { return };
        self.handing_over = true;
        // Their answers would be news to a migration that goes on elsewhere.
        self.orders.clear();
        self.order(CmdId(HAND_OVER), Order::GoOn { remainder });
    }

    /// The migration has ended here: intermediaries keep nothing of it, unless somebody may need it elsewhere.
    pub(super) fn leave_vias(&mut self) {
        let undecided = self.conductor.ending().is_some_and(|ending| ending.outcome == Outcome::Undecided);
        let needed = undecided || self.handed_over;
        for via in self.vias.hosts.drain(..) {
            if let Standing::Up(link) | Standing::Asked(link) = via.standing
                && !needed
            {
                link.free();
            }
        }
    }
}
