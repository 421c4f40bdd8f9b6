//! The partition that a producer chooses for a key: the hash functions of Kafka's Java client, of librdkafka and of Sarama.
//!
//! Pure. Empty keys are not tokens, so the partitioners' handling of them does not matter here; librdkafka's `murmur2`,
//! `consistent` and `fnv1a` differ from its `murmur2_random`, `consistent_random` and `fnv1a_random` in nothing else.

/// How producers choose the partition of a key (KAFKA_PARTITIONER).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// Kafka's Java client and compatible ones.
    #[default]
    Murmur2,
    /// librdkafka's default: CRC-32.
    Consistent,
    /// Sarama's default: FNV-1a.
    Fnv1a,
    /// Unknown: another function, or several.
    Unknown,
}

impl Partitioner {
    /// The partition of a key in a topic with this many partitions; `None` if the function is unknown or there is no partition.
    pub fn partition(self, key: &[u8], partitions: i32) -> Option<i32> {
        let partitions = u32::try_from(partitions).ok().filter(|&partitions| partitions > 0)?;
        let hash = match self {
            // Java's hash is signed; its sign bit is cleared.
            Self::Murmur2 => murmur2(key) & 0x7fff_ffff,
            Self::Consistent => crc32(key),
            // Sarama's hash is signed too, and negated.
            Self::Fnv1a => fnv1a(key).cast_signed().unsigned_abs(),
            Self::Unknown => return None,
        };
        Some((hash % partitions) as i32)
    }
}

/// MurmurHash2 with the seed of Kafka's Java client.
fn murmur2(key: &[u8]) -> u32 {
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut mixed = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(MULTIPLIER);
        mixed = (mixed ^ (mixed >> 24)).wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0, |tail, &byte| (tail << 8) | u32::from(byte));
        hash = (hash ^ tail).wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// CRC-32 as in zlib and IEEE 802.3.
fn crc32(key: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| (crc >> 8) ^ CRC32_TABLE[((crc ^ u32::from(byte)) & 0xff) as usize];
    !key.iter().fold(u32::MAX, step)
}

const CRC32_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let (mut crc, mut bit) = (index as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

/// FNV-1a of 32 bits.
fn fnv1a(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREAMBLE: &str = "PreAmbleWillBeRemoved,ThePrePartThatIs";

    /// The keys of librdkafka's own tests; the expected values come from Kafka's Java client and from Go.
    fn keys() -> [&'static str; 11] {
        let from = |start| &PREAMBLE[start..];
        ["kafka", "giberish123456789", "1234", "234", "34", "4", from(0), from(1), from(2), from(3), ""]
    }

    #[test]
    fn murmur2_is_that_of_kafkas_java_client() {
        let expected = [
            0xd067_cf64,
            0x8f55_2b0c,
            0x9fc9_7b14,
            0xe7c0_09ca,
            0x8739_30da,
            0x5a4b_5ca1,
            0x7842_4f1c,
            0x4a62_b377,
            0xe0e4_e09e,
            0x62b8_b43f,
            0x106e_08d9,
        ];
        assert_eq!(keys().map(|key| murmur2(key.as_bytes())), expected);
        // The values of Kafka's own test, as signed numbers.
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), expected, "{key}");
        }
    }

    #[test]
    fn fnv1a_is_that_of_sarama_as_librdkafka_has_it() {
        let expected = [
            0x0d33_c4e1,
            0x77a5_8295,
            0x023b_dd03,
            0x2dea_3cd2,
            0x740f_a83e,
            0x310c_a263,
            0x65cb_d69c,
            0x6e49_c79a,
            0x69ee_d356,
            0x6abc_c023,
            0x7ee3_623b,
        ];
        assert_eq!(keys().map(|key| fnv1a(key.as_bytes()).cast_signed().unsigned_abs()), expected);
    }

    #[test]
    fn consistent_is_the_crc_32_of_everybody() {
        assert_eq!((crc32(b""), crc32(b"123456789")), (0, 0xcbf4_3926));
        assert_eq!(crc32(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
    }

    #[test]
    fn a_partition_is_one_of_those_that_there_are_or_is_not_known() {
        use Partitioner::{Consistent, Fnv1a, Murmur2, Unknown};
        assert_eq!(Murmur2.partition(b"kafka", 12), Some(0x5067_cf64 % 12));
        assert_eq!(Consistent.partition(b"123456789", 12), Some((0xcbf4_3926_u32 % 12) as i32));
        assert_eq!(Fnv1a.partition(b"kafka", 12), Some(0x0d33_c4e1 % 12));
        for partitioner in [Murmur2, Consistent, Fnv1a] {
            for number in 0..1_000 {
                let key = format!("T{number}");
                let partition = partitioner.partition(key.as_bytes(), 7);
                assert!(partition.is_some_and(|it| (0..7).contains(&it)), "{partitioner:?} {key}");
            }
            assert_eq!(partitioner.partition(b"BTC", 1), Some(0));
            assert_eq!(partitioner.partition(b"BTC", 0), None);
        }
        assert_eq!(Unknown.partition(b"BTC", 12), None);
    }
}
