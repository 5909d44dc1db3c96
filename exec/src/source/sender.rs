//! The source's sender: what its threads share. A thread per connection takes batches and writes them; others take note of
//! acknowledgements and requests; the driver begins, recalls and watches sends.

use super::Input;
use super::early::Early;
use super::flow::Flow;
use super::sends::{Frame, Lane, OutSend};
use super::staging::Staging;
use crate::bucket::Bucket;
use crate::error::ExecError;
use crate::memory::{DirtyTracker, GuestMemory, Windows};
use crate::wire::page_sender::{PageSender, Treatment};
use livemig_core::pages::Bitmap;
use livemig_core::push_plan::Extent;
use livemig_core::tasks::TaskSizes;
use livemig_core::units::{Bytes, PageIndex, Rate};
use livemig_core::vocabulary::{CmdId, Failure, Joined, Peer, Region, Send};
use std::collections::BTreeSet;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Batches of what the rate limit lets through at once that may be on their way on one stream.
const BURSTS: usize = 2;
/// A stream that has been writing one batch for longer than this has to wait for the network, and not for the processor.
const WRITING: Duration = Duration::from_millis(5);
/// How old what is known of the dirty log may be when pages are skipped: reading it costs a copy of its bits.
const LOG_AGE: Duration = Duration::from_millis(10);

/// What the source's threads share.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) memory: Arc<GuestMemory>,
    state: Mutex<State>,
    pub(super) room: Condvar,
    to_driver: mpsc::Sender<Input>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Connections of this epoch are in use; `None` when there are none.
    epoch: Option<u32>,
    streams: u16,
    pub(super) sends: Vec<OutSend>,
    /// What goes to intermediaries, and what is there.
    pub(super) staging: Staging,
    in_flight: Vec<usize>,
    /// Since when each stream has been writing its last batch; a socket that is full makes it wait long before the window is full.
    writing: Vec<Option<Instant>>,
    flow: Flow,
    /// What the migration limits itself to, and what it is allowed.
    limits: [Option<Rate>; 2],
    bucket: Option<Bucket>,
    pub(super) tracker: Option<DirtyTracker>,
    /// What was dirty when it was last looked at; nothing of it has been collected since.
    dirty: Option<(Instant, Bitmap)>,
    /// Pages that the destination has asked for and not acknowledged.
    pub(super) wanted: BTreeSet<PageIndex>,
    serving: bool,
    early: Early,
    treatment: Treatment,
    tasks: Option<TaskSizes>,
    wire: u64,
}

/// Pages to put on a connection.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// The send that it is part of, unless that has not begun.
    pub(super) send: Option<CmdId>,
    pub(super) extents: Vec<Extent>,
    pub(super) treatment: Treatment,
}

impl Sender {
    pub(super) fn new(memory: Arc<GuestMemory>, to_driver: mpsc::Sender<Input>) -> Sender {
        Sender { memory, state: Mutex::default(), room: Condvar::new(), to_driver }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch for a stream; waits until there is one. `None` when the connections of this epoch are done with. The batch
    /// goes in the frame with this number.
    pub(super) fn next(&self, epoch: u32, stream: u16, seq: u32) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if state.epoch != Some(epoch) {
                return None;
            }
            state.writing[usize::from(stream)] = None;
            let wait = match state.next(stream) {
                Next::Batch(mut batch, index) => {
                    state.writing[usize::from(stream)] = Some(Instant::now());
                    batch.extents.shrink_to_fit();
                    state.sends[index].launch((Lane::Stream(stream), seq), batch.extents.clone());
                    state.in_flight[usize::from(stream)] += 1;
                    if state.staging.is_used() {
                        // What the destination does not take goes to intermediaries.
                        self.room.notify_all();
                    }
                    return Some(batch);
                }
                Next::Skipped => {
                    self.end_sends(&mut state);
                    continue;
                }
                Next::Wait(wait) => wait,
            };
            state = self.room.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A batch takes so many bytes on the wire.
    pub(super) fn count(&self, send: Option<CmdId>, bytes: u64, lane: Lane) {
        let mut state = self.lock();
        state.wire += bytes;
        if let Some(bucket) = &mut state.bucket {
            bucket.spend(bytes);
        }
        match state.sends.iter_mut().find(|s| Some(s.id) == send) {
            Some(send) => send.count(Bytes(bytes), lane),
            None => state.early.count(Bytes(bytes)),
        }
    }

    /// The destination has applied a frame of this epoch.
    pub(super) fn acknowledged(&self, epoch: u32, frame: Frame) {
        let mut state = self.lock();
        if state.epoch != Some(epoch) {
            return;
        }
        if let Lane::Stream(stream) = frame.0 {
            let flying = &mut state.in_flight[usize::from(stream)];
            *flying = flying.saturating_sub(1);
        }
        let Some((extents, took)) = state.sends.iter_mut().find_map(|send| send.acknowledged(frame)) else {
            if let Some(page) = state.early.acknowledged(frame) {
                state.wanted.remove(&page);
            }
            return;
        };
        if frame.0 != Lane::Fault {
            state.flow.acknowledged(took);
        }
        if !state.wanted.is_empty() {
            for extent in extents {
                let end = PageIndex(extent.first.0 + extent.pages);
                for page in state.wanted.range(extent.first..end).copied().collect::<Vec<_>>() {
                    if !state.sends.iter().any(|s| s.holds(page)) {
                        state.wanted.remove(&page);
                    }
                }
            }
        }
        self.end_sends(&mut state);
        self.room.notify_all();
    }

    /// The destination asks for a page. If it has not been sent it is to go in the frame with this number of the fault connection.
    pub(super) fn asked(&self, epoch: u32, page: PageIndex, seq: u32) -> Option<Batch> {
        let mut state = self.lock();
        if state.epoch != Some(epoch) {
            return None;
        }
        // A page that has been acknowledged needs nothing: the request was on its way when it arrived. One that is in the hands
        // of the migration will be part of a send.
        state.wanted.insert(page);
        let batch = state.serve(page, seq);
        drop(state);
        if batch.is_none() {
            self.hurry_page(page);
        }
        batch
    }

    /// A page that was asked for before its send had begun, or while there was no connection.
    pub(super) fn next_wanted(&self, epoch: u32, seq: u32) -> Option<Batch> {
        let mut state = self.lock();
        if state.epoch != Some(epoch) {
            return None;
        }
        let ready = state.wanted.iter().copied().find(|&page| state.sends.iter().any(|s| s.plan.contains(page)))?;
        state.serve(ready, seq)
    }

    pub(super) fn begin(&self, id: CmdId, send: Send<Bitmap>) {
        let mut state = self.lock();
        let mut send = OutSend::new(id, send, state.tasks);
        state.early.hand_over(&mut send);
        state.sends.push(send);
        self.end_sends(&mut state);
        self.room.notify_all();
    }

    /// Recalls a send; whether there was one.
    pub(super) fn recall(&self, of: CmdId) -> bool {
        let mut state = self.lock();
        let Some(send) = state.sends.iter_mut().find(|s| s.id == of) else { return false };
        send.recalled = true;
        self.end_sends(&mut state);
        drop(state);
        self.hurry_send(of);
        true
    }

    /// What is pending of a send, if it is not over, and the bytes put on the wire so far.
    pub(super) fn pending(&self, send: CmdId) -> (Option<Bytes>, u64) {
        let state = self.lock();
        (state.sends.iter().find(|s| s.id == send).map(OutSend::pending), state.wire)
    }

    /// New connections are in use.
    pub(super) fn connected(&self, epoch: u32, streams: u16) {
        let mut state = self.lock();
        state.epoch = Some(epoch);
        state.streams = streams;
        state.in_flight = vec![0; usize::from(streams)];
        state.writing = vec![None; usize::from(streams)];
        self.room.notify_all();
    }

    /// Connections are done with: what is on its way is to be sent again.
    pub(super) fn disconnected(&self) {
        let mut state = self.lock();
        state.epoch = None;
        state.sends.iter_mut().for_each(|send| send.take_back(|frame| frame.0.is_direct()));
        state.early.take_back();
        self.end_sends(&mut state);
        self.room.notify_all();
    }

    pub(super) fn fail_all(&self, failure: Failure) {
        for send in std::mem::take(&mut self.lock().sends) {
            self.complete(Input::Completed(send.into_failure(failure)));
        }
    }

    pub(super) fn set_rate(&self, limit: Option<Rate>) {
        self.limit(0, limit);
    }

    pub(super) fn allow(&self, most: Rate) {
        self.limit(1, Some(most));
    }

    fn limit(&self, which: usize, limit: Option<Rate>) {
        let mut state = self.lock();
        state.limits[which] = limit;
        let least = state.limits.into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0));
        state.bucket = least.map(|rate| Bucket::new(rate, Instant::now()));
        self.room.notify_all();
    }

    /// How streams share the pages of a send.
    pub(super) fn set_tasks(&self, tasks: Option<TaskSizes>) {
        self.lock().tasks = tasks;
    }

    /// What makes a stream's frames: memory that lies in a file is mapped task by task.
    pub(super) fn page_sender(&self) -> PageSender {
        let tasks = self.lock().tasks.filter(|_| self.memory.is_in_file());
        tasks.map_or_else(PageSender::new, |tasks| PageSender::through(Windows::new(tasks.pages(Region::Memory))))
    }

    /// What is done to pages before they are sent.
    pub(super) fn set_treatment(&self, treatment: Treatment) {
        self.lock().treatment = treatment;
    }

    pub(super) fn serve_faults(&self) {
        let mut state = self.lock();
        state.serving = true;
        state.early.open = true;
    }

    pub(super) fn serves_faults(&self) -> bool {
        self.lock().serving
    }

    pub(super) fn track(&self, tracker: Option<DirtyTracker>) {
        let mut state = self.lock();
        state.dirty = None;
        state.tracker = tracker;
    }

    pub(super) fn peek(&self) -> Result<Bytes, ExecError> {
        self.lock().tracker.as_mut().map_or(Ok(Bytes::ZERO), DirtyTracker::peek)
    }

    /// Takes dirty pages out of the tracker, and adds them to a send if it is not over: then what was added, otherwise the pages.
    pub(super) fn collect(&self, limit: Option<Bytes>, into: Option<CmdId>) -> Result<Result<Bitmap, Joined>, ExecError> {
        let mut state = self.lock();
        // What was seen dirty is about to be somebody's: it must not be skipped any more.
        state.dirty = None;
        let set = state.tracker.as_mut().map_or_else(|| Ok(Bitmap::default()), |t| t.collect(limit))?;
        // What is staged of it is not the newest version any more.
        state.staging.forget(&set);
        let Some(send) = into.and_then(|of| state.sends.iter_mut().find(|s| s.id == of)) else { return Ok(Ok(set)) };
        let joined = send.join(&set);
        self.room.notify_all();
        Ok(Err(joined))
    }

    pub(super) fn give_back(&self, set: &Bitmap) {
        if let Some(tracker) = &mut self.lock().tracker {
            tracker.give_back(set);
        }
    }

    /// Completes the sends that are over, and fails those that can go nowhere.
    pub(super) fn end_sends(&self, state: &mut State) {
        while let Some(index) = state.sends.iter().position(OutSend::is_over) {
            let send = state.sends.remove(index);
            self.complete(Input::Completed(send.into_completion()));
        }
        while let Some(index) = state.sends.iter().position(|s| s.is_stuck(|via| state.staging.is_gone(via))) {
            let send = state.sends.remove(index);
            let via = send.via.first().copied().unwrap_or(0);
            self.complete(Input::Completed(send.into_failure(Failure::Unreachable(Peer::Intermediary(via)))));
        }
    }

    pub(super) fn complete(&self, input: Input) {
        // A driver that is gone has ended its migration.
        let _ = self.to_driver.send(input);
    }
}

pub(super) enum Next {
    Batch(Batch, usize),
    /// Everything that could have been sent was dirty again.
    Skipped,
    Wait(Duration),
}

impl State {
    fn next(&mut self, stream: u16) -> Next {
        let idle = Next::Wait(Duration::from_secs(1));
        if self.in_flight[usize::from(stream)] >= self.window() {
            return idle;
        }
        let eligible = |s: &OutSend| s.direct && s.streams > stream && s.has_more();
        let Some(index) = self.sends.iter().position(eligible) else { return idle };
        self.batch(index, Some(stream))
    }

    /// The next pages of a send for a stream, or for an intermediary, as far as the limit of the rate allows for any.
    pub(super) fn batch(&mut self, index: usize, stream: Option<u16>) -> Next {
        let mut most = self.flow.pages();
        if let Some(bucket) = &mut self.bucket {
            let wait = bucket.wait(Instant::now());
            if !wait.is_zero() {
                return Next::Wait(wait);
            }
            most = most.min(bucket.batch());
        }
        let skips = self.sends[index].skips_redirtied();
        if skips {
            self.look_at_log();
        }
        let dirty = self.dirty.as_ref().filter(|_| skips).map(|(_, set)| set);
        let send = &mut self.sends[index];
        let extents = send.next(stream, most, dirty);
        if extents.is_empty() {
            return Next::Skipped;
        }
        Next::Batch(Batch { send: Some(send.id), extents, treatment: self.treatment }, index)
    }

    /// Whether the destination takes more of a send than is on its way to it: on one of its streams fewer batches are under way than
    /// may be, and the last of them is not stuck in the socket.
    pub(super) fn destination_takes(&self, send: &OutSend) -> bool {
        let window = self.window();
        let flows = |writing: &Option<Instant>| writing.is_none_or(|since| since.elapsed() < WRITING);
        let mut streams = self.in_flight.iter().zip(&self.writing).take(usize::from(send.streams));
        send.direct && self.epoch.is_some() && streams.any(|(&flying, writing)| flying < window && flows(writing))
    }

    /// When to look again whether an intermediary may get a batch, if nothing happens before.
    pub(super) fn look_again(&self) -> Duration {
        let writing = self.writing.iter().any(Option::is_some);
        let waiting = self.sends.iter().any(|send| send.direct && send.has_more() && !send.via.is_empty());
        if writing && waiting { WRITING } else { Duration::from_secs(1) }
    }

    /// Frames that may be on their way on one stream.
    pub(super) fn window(&self) -> usize {
        match &self.bucket {
            // A batch is what a burst allows.
            Some(bucket) if bucket.batch() < self.flow.pages() => BURSTS,
            _ => self.flow.window(self.streams),
        }
    }

    /// Looks at what is dirty, unless that was done a moment ago.
    fn look_at_log(&mut self) {
        if self.dirty.as_ref().is_some_and(|(at, _)| at.elapsed() < LOG_AGE) {
            return;
        }
        // A log that cannot be read skips nothing, which costs bytes and loses none.
        self.dirty = self.tracker.as_mut().and_then(|t| t.log().ok()).map(|set| (Instant::now(), set));
    }

    fn serve(&mut self, page: PageIndex, seq: u32) -> Option<Batch> {
        if !self.serving {
            return None;
        }
        let treatment = self.treatment;
        let (frame, extents) = ((Lane::Fault, seq), vec![Extent { first: page, pages: 1 }]);
        let Some(send) = self.sends.iter_mut().find(|s| s.holds(page)) else {
            return self.early.serve(page, frame).then_some(Batch { send: None, extents, treatment });
        };
        if !send.plan.fault(page) {
            return None;
        }
        send.launch(frame, extents.clone());
        Some(Batch { send: Some(send.id), extents, treatment })
    }
}
