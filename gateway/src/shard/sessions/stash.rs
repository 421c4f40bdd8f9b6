//! A client's unread bytes, which wait for their session's turn.
//!
//! They were copied out of the provided buffers, of which a whole shard has few, into memory of the session. Pure.

use std::collections::VecDeque;

use crate::limits;

/// The size of a piece, so that taking some bytes does not move the others.
const PIECE_BYTES: usize = 2 * limits::RECEIVE_BUFFER_BYTES;

/// Unread bytes in pieces.
#[derive(Debug, Default)]
pub struct Stash {
    pieces: VecDeque<Piece>,
    len: usize,
}

/// Some of the bytes, in order.
#[derive(Debug, Default)]
pub struct Piece {
    bytes: Vec<u8>,
    consumed: usize,
}

impl Stash {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.len += bytes.len();
        match self.pieces.back_mut() {
            Some(last) if last.bytes.len() + bytes.len() <= PIECE_BYTES => {
                last.bytes.extend_from_slice(bytes);
            }
            _ => self.pieces.push_back(Piece { bytes: bytes.to_vec(), consumed: 0 }),
        }
    }

    /// Takes the oldest bytes.
    pub fn take(&mut self) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        self.len -= piece.rest().len();
        Some(piece)
    }

    /// Returns the unused rest of a piece from [`Stash::take`].
    pub fn put_back(&mut self, piece: Piece) {
        self.len += piece.rest().len();
        if !piece.rest().is_empty() {
            self.pieces.push_front(piece);
        }
    }
}

impl Piece {
    /// The bytes that are not consumed.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.consumed..]
    }

    /// Consumes bytes.
    pub fn consume(&mut self, bytes: usize) {
        self.consumed += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_their_order_however_they_are_taken() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let (mut stash, mut came, mut taken) = (Stash::default(), Vec::new(), Vec::new());
            for _ in 0..100 {
                if random.bool() {
                    let bytes: Vec<u8> = (0..random.usize(1..3000)).map(|_| random.u8(..)).collect();
                    stash.push(&bytes);
                    came.extend(bytes);
                } else if let Some(mut piece) = stash.take() {
                    let consumed = random.usize(..=piece.rest().len());
                    taken.extend_from_slice(&piece.rest()[..consumed]);
                    piece.consume(consumed);
                    stash.put_back(piece);
                }
                assert_eq!(stash.len(), came.len() - taken.len());
            }
            while let Some(piece) = stash.take() {
                taken.extend_from_slice(piece.rest());
            }
            assert!(stash.is_empty() && taken == came);
        }
    }

    #[test]
    fn single_bytes_do_not_take_a_piece_each() {
        let mut stash = Stash::default();
        (0..PIECE_BYTES + 1).for_each(|_| stash.push(b"x"));
        assert_eq!((stash.pieces.len(), stash.len()), (2, PIECE_BYTES + 1));
    }
}
