//! A client that subscribes, gives back, drops its connection and comes back with what it has, to either gateway, at random.
//!
//! It has at most one request under way. What it has given back it forgets at once; what it had asked for when a connection
//! broke, without an answer, it does not hold. All that it does and gets is in its history.

mod answers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant as TokioInstant, sleep, sleep_until, timeout};

use super::scene::{Scene, Stage};
use super::wants::{Profile, Want, is_covered};
use crate::harness::audit::{Fault, Truth, audit};
use crate::harness::history::{Entry, History, Hold};
use crate::harness::lane::Selection;
use crate::harness::socket::Socket;

/// Between two looks whether all has come.
const LOOK: Duration = Duration::from_millis(250);
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// Of all returns, those that begin anew.
const FORGETS_PERCENT: u8 = 10;
/// Of all requests, those that the client does not wait to see answered.
const DROPS_AFTER_REQUEST_PERCENT: u8 = 5;

/// In a cut: nothing is promised of the partition yet.
const NOT_TOLD: i64 = i64::MAX;

enum Request {
    /// What the client does not have yet.
    Ask(Vec<usize>),
    /// What it had on an earlier connection.
    Resume(Vec<usize>),
    /// What it had, and what another one that it resumes covers.
    Repeat(Vec<usize>),
    Leave(usize),
}

/// Why a connection is over.
enum Parting {
    Dropped,
    Broken(std::io::Error),
    Over,
}

/// See the module.
pub(super) struct Client {
    scene: Arc<Scene>,
    stage: watch::Receiver<Stage>,
    random: fastrand::Rng,
    profile: Profile,
    history: History,
    wants: Vec<Want>,
    requests: VecDeque<Request>,
    under_way: Option<(Request, Instant)>,
    /// Resumed ones of which not all that was missed has come.
    resuming: Vec<Selection>,
    has_settled: bool,
}

impl Client {
    pub(super) fn new(
        scene: Arc<Scene>,
        stage: watch::Receiver<Stage>,
        random: fastrand::Rng,
        profile: Profile,
    ) -> Self {
        Self {
            scene,
            stage,
            random,
            profile,
            history: History::default(),
            wants: Vec::new(),
            requests: VecDeque::new(),
            under_way: None,
            resuming: Vec::new(),
            has_settled: false,
        }
    }

    /// Until the stage is over. Gives back what happened.
    pub(super) async fn run(mut self, begins_after: Duration) -> History {
        sleep(begins_after).await;
        loop {
            let Some(mut socket) = self.connect().await else { return self.history };
            let parting = self.stay(&mut socket).await;
            drop(socket);
            match parting {
                Parting::Over => return self.history,
                Parting::Dropped => {}
                Parting::Broken(error) => self.count_break(&error.to_string()),
            }
            self.part();
            sleep(self.scene.pace.absence_max.mul_f64(self.random.f64())).await;
        }
    }

    /// To either gateway, until one takes it. `None` when the stage is over.
    async fn connect(&mut self) -> Option<Socket> {
        while !matches!(*self.stage.borrow(), Stage::Over) {
            let gateway = self.random.usize(..2);
            let address = self.scene.gateways.lock().unwrap()[gateway];
            match timeout(CONNECT_PATIENCE, Socket::connect(address)).await {
                Ok(Ok(socket)) => {
                    self.scene.tally(|tally| tally.connections += 1);
                    self.note(Entry::Connected { gateway });
                    self.return_to_wants();
                    return Some(socket);
                }
                Ok(Err(error)) => self.count_break(&format!("not connected: {error}")),
                Err(_) => self.count_break("not connected in time"),
            }
            sleep(self.scene.pace.retry_max.mul_f64((1.0 + self.random.f64()) / 2.0)).await;
        }
        None
    }

    async fn stay(&mut self, socket: &mut Socket) -> Parting {
        let mut act = Box::pin(sleep(self.pause()));
        loop {
            match self.send_next(socket).await {
                Ok(true) => {}
                Ok(false) => return Parting::Dropped,
                Err(error) => return Parting::Broken(error),
            }
            tokio::select! {
                filled = socket.fill() => {
                    if let Err(error) = filled {
                        return Parting::Broken(error);
                    }
                    loop {
                        match socket.text().await {
                            Ok(Some(text)) => self.take(text),
                            Ok(None) => break,
                            Err(error) => return Parting::Broken(error),
                        }
                    }
                }
                () = &mut act => {
                    match self.act() {
                        Ok(next) => act.as_mut().reset(TokioInstant::now() + next),
                        Err(parting) => return parting,
                    }
                }
                _ = self.stage.changed() => act.set(sleep_until(TokioInstant::now())),
            }
        }
    }

    fn pause(&mut self) -> Duration {
        match *self.stage.borrow() {
            Stage::Churn => self.scene.pace.pause_max.mul_f64(self.random.f64()),
            Stage::Stay | Stage::Settle(_) | Stage::Over => LOOK,
        }
    }

    /// Does something, and says how long to wait for the next time.
    fn act(&mut self) -> Result<Duration, Parting> {
        if let Some((_, sent_at)) = &self.under_way
            && sent_at.elapsed() > ANSWER_PATIENCE
        {
            self.history.complaints.push("a request was never answered".into());
            return Err(Parting::Dropped);
        }
        let stage = self.stage.borrow().clone();
        match stage {
            Stage::Over => return Err(Parting::Over),
            Stage::Stay => {}
            Stage::Settle(truth) => self.look(&truth),
            Stage::Churn => {
                let is_idle = self.requests.is_empty() && self.under_way.is_none();
                match self.random.u8(..10) {
                    0..=3 => return Err(Parting::Dropped),
                    4..=6 if is_idle => self.ask_further(),
                    7..=9 if is_idle => self.leave_one(),
                    _ => {}
                }
            }
        }
        Ok(self.pause())
    }

    fn look(&mut self, truth: &Truth) {
        let is_waiting = !self.requests.is_empty() || self.under_way.is_some() || !self.resuming.is_empty();
        if self.has_settled || is_waiting {
            return;
        }
        let is_told = |want: &Want| {
            let cut = &self.history.holds[want.hold].cut;
            want.selection.kind.is_none() || !cut.values().any(|&first| first == NOT_TOLD)
        };
        if !self.wants.iter().all(is_told) {
            return;
        }
        if !audit(&self.history, truth).iter().any(|finding| finding.fault == Fault::Lost) {
            self.has_settled = true;
            self.scene.tally(|tally| tally.settled += 1);
        }
    }

    fn ask_further(&mut self) {
        let is_settled = self.resuming.is_empty();
        if let Some(selection) = self.profile.further(&self.wants, is_settled, &mut self.random) {
            self.ask(vec![selection]);
        }
    }

    fn ask(&mut self, selections: Vec<Selection>) {
        let mut holds = Vec::new();
        for selection in selections {
            let hold = self.history.holds.len();
            self.history.holds.push(Hold { selection, cut: Default::default() });
            self.wants.push(Want::new(hold, selection));
            holds.push(hold);
        }
        self.requests.push_back(Request::Ask(holds));
    }

    /// One of several; not one whose replay is all that another one resumes by.
    fn leave_one(&mut self) {
        let place = self.random.usize(..self.wants.len());
        let selection = self.wants[place].selection;
        let covers =
            self.wants.iter().any(|want| want.selection != selection && selection.covers(want.selection));
        if self.wants.len() > 1 && !(covers && self.resuming.contains(&selection)) {
            self.requests.push_back(Request::Leave(self.wants[place].hold));
        }
    }

    /// On a new connection: asks for what it had, each with what it has, or forgets it all.
    fn return_to_wants(&mut self) {
        let is_churn = matches!(*self.stage.borrow(), Stage::Churn);
        if is_churn && self.random.u8(..100) < FORGETS_PERCENT {
            for want in std::mem::take(&mut self.wants) {
                self.note(Entry::Left { hold: want.hold });
                self.note(Entry::Ended { hold: want.hold });
            }
        }
        if self.wants.is_empty() {
            let first = self.profile.first(&mut self.random);
            return self.ask(first);
        }
        let is_fixed = self.is_fixed();
        let (covered, alone): (Vec<_>, Vec<_>) =
            self.wants.iter().partition(|want| !is_fixed && is_covered(want, &self.wants));
        let holds = |wants: Vec<&Want>| wants.iter().map(|want| want.hold).collect::<Vec<usize>>();
        self.requests.push_back(Request::Resume(holds(alone)));
        if !covered.is_empty() {
            self.requests.push_back(Request::Repeat(holds(covered)));
        }
    }

    /// The connection is over. What was asked for and not promised is forgotten.
    fn part(&mut self) {
        self.note(Entry::Disconnected);
        self.resuming.clear();
        let under_way = self.under_way.take().map(|(request, _)| (request, true));
        let waiting: Vec<_> = self.requests.drain(..).map(|request| (request, false)).collect();
        for (request, was_sent) in under_way.into_iter().chain(waiting) {
            match request {
                Request::Ask(holds) => {
                    self.wants.retain(|want| !holds.contains(&want.hold));
                    for hold in holds.into_iter().filter(|_| was_sent) {
                        self.note(Entry::Ended { hold });
                    }
                }
                Request::Leave(hold) if was_sent => self.note(Entry::Ended { hold }),
                Request::Leave(_) | Request::Resume(_) | Request::Repeat(_) => {}
            }
        }
    }

    /// Sends a request when none is under way; false when the client then drops the connection.
    async fn send_next(&mut self, socket: &mut Socket) -> std::io::Result<bool> {
        if self.under_way.is_some() {
            return Ok(true);
        }
        let Some(request) = self.requests.pop_front() else { return Ok(true) };
        self.scene.tally(|tally| tally.requests += 1);
        let text = self.prepare(&request).to_string();
        self.under_way = Some((request, Instant::now()));
        socket.send_text(&text).await?;
        let is_churn = matches!(*self.stage.borrow(), Stage::Churn);
        Ok(!(is_churn && self.random.u8(..100) < DROPS_AFTER_REQUEST_PERCENT))
    }

    /// Writes down that it is sent.
    fn prepare(&mut self, request: &Request) -> Value {
        match request {
            &Request::Leave(hold) => {
                self.note(Entry::Left { hold });
                self.wants.retain(|want| want.hold != hold);
                let selection = self.history.holds[hold].selection;
                self.resuming.retain(|&resuming| resuming != selection);
                json!({"type": "unsubscribe", "data": {"channels": [selection.to_string()]}})
            }
            Request::Ask(holds) => {
                holds.iter().for_each(|&hold| self.note(Entry::Asked { hold }));
                json!({"type": "subscribe", "data": {"channels": self.names(holds), "positions": true}})
            }
            Request::Repeat(holds) => {
                json!({"type": "subscribe", "data": {"channels": self.names(holds)}})
            }
            Request::Resume(holds) => {
                holds.iter().for_each(|&hold| self.note(Entry::Resuming { hold }));
                let mut since = serde_json::Map::new();
                let is_fixed = self.is_fixed();
                for want in self.wants.iter().filter(|want| holds.contains(&want.hold)) {
                    self.resuming.push(want.selection);
                    let place =
                        if is_fixed { want.place() } else { want.since(&self.wants, &mut self.random) };
                    since.insert(want.selection.to_string(), place);
                    // A list that does not name a partition asks for all of it.
                    self.history.holds[want.hold].cut.retain(|_, first| *first != NOT_TOLD);
                }
                self.scene.tally(|tally| tally.resumes += holds.len() as u64);
                // Where a subscription is live again that cannot be resumed.
                let positions = is_fixed;
                let data = json!({"channels": self.names(holds), "positions": positions, "since": since});
                json!({"type": "subscribe", "data": data})
            }
        }
    }

    fn names(&self, holds: &[usize]) -> Vec<String> {
        holds.iter().map(|&hold| self.history.holds[hold].selection.to_string()).collect()
    }

    fn is_fixed(&self) -> bool {
        matches!(self.profile, Profile::Fixed(_))
    }

    fn note(&mut self, entry: Entry) {
        self.history.note(self.scene.started_at.elapsed(), entry);
    }

    fn count_break(&self, said: &str) {
        self.scene.tally(|tally| *tally.breaks.entry(said.to_owned()).or_default() += 1);
    }
}
