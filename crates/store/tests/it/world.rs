//! A world as small as can be, for T2: rows for one recipient, two brokers on one database, and connections that come and go. What
//! happens is one of a few steps, in any order; the rules are those of `delivery.md` section 1, as the statements of
//! `store/src/claim.rs`, `settle.rs` and `node.rs` have them.
//!
//! Time goes in ticks: a lease lasts two, each renewal one more, and a broker that has not beaten for two is silent.

use stateright::{Model, Property};

const LEASE: u8 = 2;
const SILENT_AFTER: u8 = 2;
const BROKERS: usize = 2;

/// How large the world is.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) rows: usize,
    /// Which broker each of the recipient's connections is made to.
    pub(crate) lines: Vec<usize>,
    /// Ticks.
    pub(crate) time: u8,
    /// How often each line is opened.
    pub(crate) openings: u8,
    /// How many brokers are killed, and how many are frozen.
    pub(crate) troubles: u8,
    /// A mistake that must be found.
    pub(crate) flaw: Option<Flaw>,
}

/// What somebody could get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A claim takes rows whose lease runs.
    ClaimsWhatIsHeld,
    /// A row once claimed is free only when it is released.
    LeasesNeverEnd,
    /// A broker that starts leaves the claims of its earlier start alone.
    RestartKeepsClaims,
    /// Rows of a silent broker stay claimed.
    SilenceIsTrusted,
    /// A release frees the row whoever holds it by now.
    ReleasesWhatAnotherHolds,
    /// A closed connection releases nothing.
    ClosesWithoutRelease,
    /// Anybody's ack ends the row.
    AnybodyAcks,
    /// A renewal does not look whether the row has passed to another.
    RenewsWhatAnotherHolds,
    /// A row that was delivered may still expire.
    ExpiresWhatEnded,
    /// What is written to the socket counts as delivered.
    PushIsDelivery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum End {
    Delivered,
    Expired,
}

/// A row of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Row {
    is_sent: bool,
    end: Option<End>,
    claim: Option<Claim>,
    /// How it ended first; never looked at by a step.
    first_end: Option<End>,
    /// The recipient's client has it on its disk.
    is_kept: bool,
    /// Somebody held it rightly when another took or freed it.
    is_robbed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Claim {
    broker: usize,
    incarnation: u8,
    line: usize,
    opening: u8,
    until: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Life {
    Up,
    /// It runs, and comes to nothing: paused, or cut off from the database.
    Frozen,
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Broker {
    life: Life,
    incarnation: u8,
    beaten_at: u8,
}

/// A connection of the recipient, as its broker knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Line {
    opening: u8,
    is_open: bool,
    /// By row: until when, and how many leases it has had.
    held: Vec<Option<(u8, u8)>>,
    /// Written to the socket and not yet read.
    under_way: Vec<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    now: u8,
    troubles: u8,
    rows: Vec<Row>,
    brokers: Vec<Broker>,
    lines: Vec<Line>,
    /// Acks and releases that a broker has taken and not yet committed: broker, row, and for a release the line and opening.
    acks: Vec<(usize, usize)>,
    releases: Vec<(usize, usize, (usize, u8))>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Send(usize),
    Open(usize),
    Claim(usize),
    Read(usize, usize),
    Ack(usize, usize),
    Renew(usize),
    Close(usize),
    StrangerAcks(usize),
    CommitAck(usize),
    CommitRelease(usize),
    Expire(usize),
    Tick,
    Kill(usize),
    Start(usize),
    Freeze(usize),
    Thaw(usize),
}

impl State {
    fn is_free(&self, row: &Row, flaw: Option<Flaw>) -> bool {
        let Some(claim) = row.claim.filter(|_| flaw != Some(Flaw::ClaimsWhatIsHeld)) else { return true };
        let is_over = claim.until <= self.now && flaw != Some(Flaw::LeasesNeverEnd);
        is_over || !self.beats(claim.broker, claim.incarnation, flaw)
    }

    /// `not exists (select 1 from node where incarnation = … and heartbeat_at > …)`, the other way round.
    fn beats(&self, broker: usize, incarnation: u8, flaw: Option<Flaw>) -> bool {
        let broker = &self.brokers[broker];
        let is_over = broker.incarnation != incarnation && flaw != Some(Flaw::RestartKeepsClaims);
        !is_over && (broker.beaten_at + SILENT_AFTER > self.now || flaw == Some(Flaw::SilenceIsTrusted))
    }

    /// A connection claims a row, or frees it.
    fn hand(&mut self, row: usize, by: (usize, u8), to: Option<Claim>) {
        let is_others = |claim: Claim| (claim.line, claim.opening) != by && claim.until > self.now;
        let is_robbed = self.rows[row]
            .claim
            .is_some_and(|claim| is_others(claim) && self.beats(claim.broker, claim.incarnation, None));
        let row = &mut self.rows[row];
        (row.claim, row.is_robbed) = (to, row.is_robbed || is_robbed);
    }

    fn end(&mut self, row: usize, end: End) {
        let row = &mut self.rows[row];
        (row.end, row.claim) = (Some(end), None);
        row.first_end.get_or_insert(end);
    }

    fn lose(&mut self, broker: usize, lines: &[usize]) {
        self.acks.retain(|(of, _)| *of != broker);
        self.releases.retain(|(of, ..)| *of != broker);
        for (line, _) in self.lines.iter_mut().zip(lines).filter(|(_, of)| **of == broker) {
            line.close();
        }
    }
}

impl Line {
    fn close(&mut self) -> Vec<usize> {
        let held = (0..self.held.len()).filter(|row| self.held[*row].is_some()).collect();
        self.is_open = false;
        self.held.fill(None);
        self.under_way.fill(false);
        held
    }
}

impl World {
    fn is_up(&self, state: &State, line: usize) -> bool {
        state.lines[line].is_open && state.brokers[self.lines[line]].life == Life::Up
    }

    fn claim(&self, state: &mut State, line: usize) {
        let broker = self.lines[line];
        let claim = Claim {
            broker,
            incarnation: state.brokers[broker].incarnation,
            line,
            opening: state.lines[line].opening,
            until: state.now + LEASE,
        };
        for row in 0..self.rows {
            let is_free = state.is_free(&state.rows[row], self.flaw);
            let of = &state.rows[row];
            if of.is_sent && of.end.is_none() && is_free && state.lines[line].held[row].is_none() {
                state.hand(row, (line, claim.opening), Some(claim));
                state.lines[line].held[row] = Some((claim.until, 1));
                state.lines[line].under_way[row] = true;
                if self.flaw == Some(Flaw::PushIsDelivery) {
                    state.end(row, End::Delivered);
                }
            }
        }
    }

    /// Rows that are overdue are claimed again, if they are still this connection's.
    fn renew(&self, state: &mut State, line: usize) {
        let opening = state.lines[line].opening;
        for row in 0..self.rows {
            let overdue = state.lines[line].held[row].filter(|(until, _)| *until <= state.now);
            let Some((_, leases)) = overdue else { continue };
            let of = &state.rows[row];
            let is_own = of.claim.is_some_and(|claim| (claim.line, claim.opening) == (line, opening))
                || self.flaw == Some(Flaw::RenewsWhatAnotherHolds);
            if is_own && of.end.is_none() {
                let until = state.now + LEASE + leases;
                let incarnation = state.brokers[self.lines[line]].incarnation;
                let claim = Claim { broker: self.lines[line], incarnation, line, opening, until };
                state.hand(row, (line, opening), Some(claim));
                state.lines[line].held[row] = Some((until, leases + 1));
                state.lines[line].under_way[row] = true;
            } else {
                state.lines[line].held[row] = None;
            }
        }
    }

    fn close(&self, state: &mut State, line: usize) {
        let (broker, opening) = (self.lines[line], state.lines[line].opening);
        for row in state.lines[line].close() {
            if self.flaw != Some(Flaw::ClosesWithoutRelease) {
                state.releases.push((broker, row, (line, opening)));
            }
        }
    }

    fn commit_release(&self, state: &mut State, index: usize) {
        let (_, row, holder) = state.releases.remove(index);
        let is_own = state.rows[row].claim.is_some_and(|claim| (claim.line, claim.opening) == holder);
        if is_own || self.flaw == Some(Flaw::ReleasesWhatAnotherHolds) {
            state.hand(row, holder, None);
        }
    }

    fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::Send(row) => state.rows[row].is_sent = true,
            Step::Open(line) => {
                let line = &mut state.lines[line];
                (line.is_open, line.opening) = (true, line.opening + 1);
            }
            Step::Claim(line) => self.claim(state, line),
            Step::Read(line, row) => {
                state.lines[line].under_way[row] = false;
                state.rows[row].is_kept = true;
            }
            Step::Ack(line, row) => {
                state.lines[line].held[row] = None;
                state.acks.push((self.lines[line], row));
            }
            Step::Renew(line) => self.renew(state, line),
            Step::Close(line) => self.close(state, line),
            Step::StrangerAcks(row) => {
                if self.flaw == Some(Flaw::AnybodyAcks) {
                    state.end(row, End::Delivered);
                }
            }
            Step::CommitAck(index) => {
                let (_, row) = state.acks.remove(index);
                if state.rows[row].end.is_none() {
                    state.end(row, End::Delivered);
                }
            }
            Step::CommitRelease(index) => self.commit_release(state, index),
            Step::Expire(row) => state.end(row, End::Expired),
            Step::Tick => {
                state.now += 1;
                for broker in state.brokers.iter_mut().filter(|broker| broker.life == Life::Up) {
                    broker.beaten_at = state.now;
                }
            }
            Step::Kill(broker) => {
                state.troubles += 1;
                state.brokers[broker].life = Life::Down;
                state.lose(broker, &self.lines);
            }
            Step::Start(broker) => {
                let of = &mut state.brokers[broker];
                (of.life, of.incarnation, of.beaten_at) = (Life::Up, of.incarnation + 1, state.now);
            }
            Step::Freeze(broker) => {
                state.troubles += 1;
                state.brokers[broker].life = Life::Frozen;
            }
            Step::Thaw(broker) => {
                let of = &mut state.brokers[broker];
                (of.life, of.beaten_at) = (Life::Up, state.now);
            }
        }
        // What waits for a commit has no order among itself.
        state.acks.sort_unstable();
        state.acks.dedup();
        state.releases.sort_unstable();
    }

    /// From here on nothing more goes wrong, nobody is repaired who need not be, and the recipient comes again and again: whether
    /// it has everything in the end.
    fn has_a_way_out(&self, state: &State) -> bool {
        let mut state = state.clone();
        if state.brokers.iter().all(|broker| broker.life != Life::Up) {
            let down = state.brokers.iter().position(|broker| broker.life == Life::Down);
            self.take(&mut state, down.map_or(Step::Thaw(0), Step::Start));
        }
        let up = state.brokers.iter().position(|broker| broker.life == Life::Up).unwrap();
        let Some(line) = self.lines.iter().position(|of| *of == up) else { return true };
        let is_over = |state: &State| state.rows.iter().all(|row| !row.is_sent || row.end.is_some());
        for _ in 0..4 * (LEASE + SILENT_AFTER + 4) {
            if is_over(&state) {
                return true;
            }
            if !state.lines[line].is_open {
                self.take(&mut state, Step::Open(line));
            }
            while let Some(index) = state.releases.iter().position(|(of, ..)| *of == up) {
                self.take(&mut state, Step::CommitRelease(index));
            }
            self.take(&mut state, Step::Renew(line));
            self.take(&mut state, Step::Claim(line));
            for row in 0..self.rows {
                if state.lines[line].under_way[row] {
                    self.take(&mut state, Step::Read(line, row));
                }
                if state.lines[line].held[row].is_some() && state.rows[row].is_kept {
                    self.take(&mut state, Step::Ack(line, row));
                }
            }
            while let Some(index) = state.acks.iter().position(|(of, _)| *of == up) {
                self.take(&mut state, Step::CommitAck(index));
            }
            self.take(&mut state, Step::Tick);
        }
        is_over(&state)
    }

    /// Whoever holds a row by the table is there, or its broker has only just fallen silent, or a release or an ack
    /// of it waits for a commit.
    fn waits_for_nobody(&self, state: &State) -> bool {
        state.rows.iter().enumerate().filter(|(_, row)| row.end.is_none()).all(|(number, row)| {
            let Some(claim) = row.claim.filter(|_| !state.is_free(row, self.flaw)) else { return true };
            let line = &state.lines[claim.line];
            let broker = &state.brokers[claim.broker];
            let is_there = line.is_open && line.opening == claim.opening;
            let is_silent = broker.life != Life::Up && broker.beaten_at + SILENT_AFTER > state.now;
            let is_released = state.releases.iter().any(|(_, _, holder)| *holder == (claim.line, claim.opening));
            is_there || is_silent || is_released || state.acks.contains(&(claim.broker, number))
        })
    }
}

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let line = Line { opening: 0, is_open: false, held: vec![None; self.rows], under_way: vec![false; self.rows] };
        vec![State {
            now: 0,
            troubles: 0,
            rows: vec![Row::default(); self.rows],
            brokers: vec![Broker { life: Life::Up, incarnation: 1, beaten_at: 0 }; BROKERS],
            lines: vec![line; self.lines.len()],
            acks: Vec::new(),
            releases: Vec::new(),
        }]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if let Some(row) = state.rows.iter().position(|row| !row.is_sent) {
            steps.push(Step::Send(row));
        }
        for (number, line) in state.lines.iter().enumerate() {
            if self.is_up(state, number) {
                steps.extend([Step::Claim(number), Step::Renew(number), Step::Close(number)]);
                let kept = |row: &usize| line.held[*row].is_some() && state.rows[*row].is_kept;
                steps.extend((0..self.rows).filter(kept).map(|row| Step::Ack(number, row)));
            } else if !line.is_open
                && line.opening < self.openings
                && state.brokers[self.lines[number]].life == Life::Up
            {
                steps.push(Step::Open(number));
            }
            // What was written reaches the client whatever becomes of the broker.
            steps.extend((0..self.rows).filter(|row| line.under_way[*row]).map(|row| Step::Read(number, row)));
        }
        for (number, broker) in state.brokers.iter().enumerate() {
            let may_fail = state.troubles < self.troubles;
            match broker.life {
                Life::Up if may_fail => steps.extend([Step::Kill(number), Step::Freeze(number)]),
                Life::Up => {}
                Life::Frozen => steps.push(Step::Thaw(number)),
                Life::Down => steps.push(Step::Start(number)),
            }
        }
        let is_up = |broker: usize| state.brokers[broker].life == Life::Up;
        let acks = state.acks.iter().enumerate().filter(|(_, (broker, _))| is_up(*broker));
        steps.extend(acks.map(|(index, _)| Step::CommitAck(index)));
        let releases = state.releases.iter().enumerate().filter(|(_, (broker, ..))| is_up(*broker));
        steps.extend(releases.map(|(index, _)| Step::CommitRelease(index)));
        for (number, row) in state.rows.iter().enumerate().filter(|(_, row)| row.is_sent) {
            if row.end.is_none() {
                steps.push(Step::StrangerAcks(number));
            }
            let may_end = row.end.is_none() || self.flaw == Some(Flaw::ExpiresWhatEnded);
            if state.now == self.time && may_end {
                steps.push(Step::Expire(number));
            }
        }
        if state.now < self.time {
            steps.push(Step::Tick);
        }
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        self.take(&mut next, step);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_HOLDER, |_, state: &State| !state.rows.iter().any(|row| row.is_robbed)),
            Property::always(DELIVERED_IS_KEPT, |_, state: &State| {
                state.rows.iter().all(|row| row.end != Some(End::Delivered) || row.is_kept)
            }),
            Property::always(ENDS_ONCE, |_, state: &State| state.rows.iter().all(|row| row.end == row.first_end)),
            Property::always(NO_DEAD_END, Self::has_a_way_out),
            Property::always(WAITS_FOR_NOBODY, Self::waits_for_nobody),
            Property::sometimes("a row passes to another connection", |_, state: &State| {
                state.rows.iter().any(|row| row.is_kept && row.claim.is_some_and(|claim| claim.opening > 1))
            }),
            Property::sometimes("two connections have been handed one row", |_, state: &State| {
                let has = |row: usize| state.lines.iter().filter(|line| line.held[row].is_some()).count();
                (0..state.rows.len()).any(|row| has(row) > 1)
            }),
            Property::sometimes("everything is delivered", |_, state: &State| {
                state.rows.iter().all(|row| row.end == Some(End::Delivered))
            }),
        ]
    }
}

pub(crate) const ONE_HOLDER: &str = "a row has at most one unexpired claim (D10)";
pub(crate) const DELIVERED_IS_KEPT: &str = "what is delivered, its recipient has kept (D3, D4)";
pub(crate) const ENDS_ONCE: &str = "a row that ended stays as it ended (D3)";
pub(crate) const NO_DEAD_END: &str = "a recipient that keeps coming gets everything (D2)";
pub(crate) const WAITS_FOR_NOBODY: &str = "no row waits for a connection that is gone";
