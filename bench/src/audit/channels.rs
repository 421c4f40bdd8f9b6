//! State of the channels across sessions. Each channel name is mapped to a small number once per distinct
//! event, so that the audit of 12,000 sessions consists of plain tables.

use std::collections::HashMap;

use protocol::{Channel, Pattern, PatternName};

/// Number of a channel, in the order of first appearance.
pub type ChannelId = u32;
/// Index of a pattern in the run's list.
pub type PatternId = u16;

/// The ordinal of the first `seq` received on a channel. Lower `seq`s, which a late session may receive, fit
/// below it. 0 is unused.
const ORDINAL_OF_FIRST: u32 = 1 << 31;

#[derive(Debug)]
struct ChannelState {
    /// The `seq` that arrived first; its ordinal is [`ORDINAL_OF_FIRST`].
    first_seq: Option<u64>,
    /// The highest ordinal that any session received.
    newest: Option<u32>,
    /// The highest ordinal at the end of the window.
    newest_of_window: Option<u32>,
    /// The lowest ordinal published within the window: due to every session that selects the channel.
    owed_from: Option<u32>,
    /// The patterns that select this channel, ascending.
    selected_by: Box<[PatternId]>,
}

#[derive(Debug)]
pub(super) struct Channels {
    /// Patterns that name a single channel, by name: with 10,000 patterns a lookup is needed instead of a
    /// scan.
    exact: HashMap<String, PatternId>,
    wildcards: Vec<(PatternId, PatternName<'static>)>,
    /// For each pattern, the known channels that it selects.
    selected: Vec<Vec<ChannelId>>,
    ids: HashMap<String, ChannelId>,
    known: Vec<ChannelState>,
    streams: HashMap<(String, i32), u32>,
    window_ended: bool,
}

impl Channels {
    pub(super) fn new(patterns: Vec<PatternName<'static>>) -> Self {
        let selected = vec![Vec::new(); patterns.len()];
        let numbered = patterns.into_iter().enumerate().map(|(id, pattern)| (id as PatternId, pattern));
        let (exact, wildcards): (Vec<_>, Vec<_>) =
            numbered.partition(|(_, name)| matches!(name.pattern(), Pattern::Exact { .. }));
        Self {
            exact: exact.into_iter().map(|(id, name)| (name.as_str().to_owned(), id)).collect(),
            wildcards,
            selected,
            ids: HashMap::new(),
            known: Vec::new(),
            streams: HashMap::new(),
            window_ended: false,
        }
    }

    pub(super) fn channel(&mut self, name: &str) -> ChannelId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.known.len() as ChannelId;
        // No pattern selects an invalid channel name, so its events count as unrequested.
        let selects = |pattern: &PatternName<'_>| {
            Channel::parse(name).is_ok_and(|channel| pattern.pattern().selects(channel))
        };
        let wildcards = self.wildcards.iter().filter(|(_, pattern)| selects(pattern)).map(|(id, _)| *id);
        let mut selected_by: Box<[PatternId]> = wildcards.chain(self.exact.get(name).copied()).collect();
        selected_by.sort_unstable();
        for pattern in &selected_by {
            self.selected[usize::from(*pattern)].push(id);
        }
        self.known.push(ChannelState {
            first_seq: None,
            newest: None,
            newest_of_window: None,
            owed_from: None,
            selected_by,
        });
        self.ids.insert(name.to_owned(), id);
        id
    }

    /// The channel with that name, if it is known.
    pub(super) fn find(&self, name: &str) -> Option<ChannelId> {
        self.ids.get(name).copied()
    }

    /// The number of a partition of the channel's kind; offsets increase within it.
    pub(super) fn stream(&mut self, channel: &str, partition: i32) -> u32 {
        let kind = channel.rsplit_once('.').map_or(channel, |(_, kind)| kind);
        let next = self.streams.len() as u32;
        *self.streams.entry((kind.to_owned(), partition)).or_insert(next)
    }

    /// Records a `seq` and converts it to an ordinal of the channel; `None` if it does not fit.
    pub(super) fn note(&mut self, id: ChannelId, seq: u64, in_window: bool) -> Option<u32> {
        let known = &mut self.known[id as usize];
        let first = *known.first_seq.get_or_insert(seq);
        let ordinal = i128::from(seq) - i128::from(first) + i128::from(ORDINAL_OF_FIRST);
        let ordinal = u32::try_from(ordinal).ok().filter(|ordinal| *ordinal > 0)?;
        known.newest = known.newest.max(Some(ordinal));
        if in_window {
            known.owed_from = Some(known.owed_from.map_or(ordinal, |from| from.min(ordinal)));
        }
        Some(ordinal)
    }

    pub(super) fn end_window(&mut self) {
        self.window_ended = true;
        for known in &mut self.known {
            known.newest_of_window = known.newest;
        }
    }

    /// Every known channel that one of the patterns selects, each once.
    pub(super) fn selected_by(&self, patterns: &[PatternId]) -> impl Iterator<Item = ChannelId> {
        patterns.iter().enumerate().flat_map(move |(index, pattern)| {
            let before = &patterns[..index];
            let channels = self.selected[usize::from(*pattern)].iter().copied();
            channels.filter(move |channel| before.is_empty() || !self.selects(before, *channel))
        })
    }

    /// The last ordinal of this channel that is due to sessions.
    pub(super) fn newest(&self, id: ChannelId) -> Option<u32> {
        let known = &self.known[id as usize];
        if self.window_ended { known.newest_of_window } else { known.newest }
    }

    pub(super) fn owed_from(&self, id: ChannelId) -> Option<u32> {
        self.known[id as usize].owed_from
    }

    pub(super) fn selects(&self, patterns: &[PatternId], id: ChannelId) -> bool {
        let selected_by = &self.known[id as usize].selected_by;
        patterns.iter().any(|pattern| selected_by.binary_search(pattern).is_ok())
    }
}
