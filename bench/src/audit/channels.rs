//! What is known of channels across sessions. Names become small numbers here, once per distinct event, so that the
//! books of 12,000 sessions are plain tables.

use std::collections::HashMap;

use protocol::{Channel, Pattern, PatternName};

/// A channel by number, in the order of first sight.
pub type ChannelId = u32;
/// One of the run's patterns by its index.
pub type PatternId = u16;

/// The ordinal of a channel's first `seq`: earlier ones, which a late session may bring, fit below it. 0 stays free.
const ORDINAL_OF_FIRST: u32 = 1 << 31;

#[derive(Debug)]
struct ChannelState {
    /// The `seq` that arrived first; it has the ordinal [`ORDINAL_OF_FIRST`].
    first_seq: Option<u64>,
    /// The highest ordinal that any session saw.
    newest: Option<u32>,
    /// The highest when the window ended.
    newest_of_window: Option<u32>,
    /// The lowest ordinal that was published within the window: owed to every session that selects the channel.
    owed_from: Option<u32>,
    /// The patterns that select this channel, ascending.
    selected_by: Box<[PatternId]>,
}

#[derive(Debug)]
pub(super) struct Channels {
    /// Patterns that are one channel's name, by it: 10,000 of them are looked up, not walked.
    exact: HashMap<String, PatternId>,
    wildcards: Vec<(PatternId, PatternName<'static>)>,
    /// By pattern: the channels seen that it selects.
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
        // A name that is no channel is selected by nothing: its events are unrequested.
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

    /// The channel of that name, once it was seen.
    pub(super) fn find(&self, name: &str) -> Option<ChannelId> {
        self.ids.get(name).copied()
    }

    /// The number of a partition of the channel's kind: offsets count up within it.
    pub(super) fn stream(&mut self, channel: &str, partition: i32) -> u32 {
        let kind = channel.rsplit_once('.').map_or(channel, |(_, kind)| kind);
        let next = self.streams.len() as u32;
        *self.streams.entry((kind.to_owned(), partition)).or_insert(next)
    }

    /// Takes note of a `seq` and puts it on the channel's scale; `None` when it does not fit there.
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

    /// Every channel seen that one of the patterns selects, once.
    pub(super) fn selected_by(&self, patterns: &[PatternId]) -> impl Iterator<Item = ChannelId> {
        patterns.iter().enumerate().flat_map(move |(index, pattern)| {
            let before = &patterns[..index];
            let channels = self.selected[usize::from(*pattern)].iter().copied();
            channels.filter(move |channel| before.is_empty() || !self.selects(before, *channel))
        })
    }

    /// Up to where sessions owe this channel.
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
