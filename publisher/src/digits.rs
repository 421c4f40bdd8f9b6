//! Writes text and numbers into a byte buffer, without `std::fmt` and without allocation. Pure.

pub(crate) fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn whole(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes `units` of 10^-`digits` as a JSON number with all its digits.
pub(crate) fn decimal(out: &mut Vec<u8>, units: u64, digits: u32) {
    let scale = 10u64.pow(digits);
    whole(out, units / scale);
    if digits == 0 {
        return;
    }
    out.push(b'.');
    let mut buffer = itoa::Buffer::new();
    let fraction = buffer.format(units % scale).as_bytes();
    out.resize(out.len() + digits as usize - fraction.len(), b'0');
    out.extend_from_slice(fraction);
}

pub(crate) fn signed_decimal(out: &mut Vec<u8>, units: i64, digits: u32) {
    if units < 0 {
        out.push(b'-');
    }
    decimal(out, units.unsigned_abs(), digits);
}

pub(crate) fn hexadecimal(out: &mut Vec<u8>, number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    for (i, byte) in number.to_be_bytes().into_iter().enumerate() {
        digits[2 * i] = DIGITS[usize::from(byte >> 4)];
        digits[2 * i + 1] = DIGITS[usize::from(byte & 15)];
    }
    out.extend_from_slice(&digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit() {
        let cases: [(i64, u32, &str); 7] = [
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (123, 2, "1.23"),
            (-7, 0, "-7"),
            (6_700_012_345_678, 8, "67000.12345678"),
            (100_000_000, 8, "1.00000000"),
        ];
        for (units, digits, expected) in cases {
            let mut out = Vec::new();
            signed_decimal(&mut out, units, digits);
            assert_eq!(std::str::from_utf8(&out), Ok(expected));
        }
    }

    #[test]
    fn hexadecimal_has_sixteen_digits() {
        let mut out = Vec::new();
        hexadecimal(&mut out, 0x00ab_cdef_0123_4567);
        assert_eq!(out, b"00abcdef01234567");
    }
}
