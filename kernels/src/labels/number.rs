//! Numbers as Prometheus prints them: a float as Go's `FormatFloat(f, 'f', -1, 64)`, the shortest
//! decimal that reads back, never an exponent; a time as seconds with three decimals or none.

/// Append a float.
pub fn push_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_sign_negative() && value != f64::NEG_INFINITY {
        out.push(b'-');
    }
    let size = value.abs();
    if size == f64::INFINITY {
        return out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    // Below 1e12 a decimal with three places has at most 15 digits: where it reads back it is the
    // shortest. Most samples end here, three times as fast as the general way.
    if size < 1e12 {
        let whole = size as u64;
        if whole as f64 == size {
            return push_integer(out, whole);
        }
        for (digits, power) in [(1, 10u64), (2, 100), (3, 1000)] {
            let scaled = (size * power as f64 + 0.5) as u64;
            if scaled as f64 / power as f64 == size {
                push_integer(out, scaled / power);
                out.push(b'.');
                let fraction = scaled % power + power;
                let mut buffer = itoa::Buffer::new();
                // The leading 1 kept the zeros; it is not printed.
                return out.extend_from_slice(&buffer.format(fraction).as_bytes()[1..=digits]);
            }
        }
    }
    push_shortest(out, size);
}

fn push_integer(out: &mut Vec<u8>, value: u64) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(value).as_bytes());
}

fn push_shortest(out: &mut Vec<u8>, size: f64) {
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(size);
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    };
    let exponent: i32 = exponent.parse().expect("ryu writes an integer exponent");
    let (head, tail) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    // Position of the decimal point within the digits.
    let point = head.len() as i32 + exponent;
    let digits = head.bytes().chain(tail.bytes());
    if point <= 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', -point as usize));
        return out.extend(digits);
    }
    let point = point as usize;
    let count = head.len() + tail.len();
    for (at, digit) in digits.enumerate() {
        if at == point {
            out.push(b'.');
        }
        out.push(digit);
    }
    out.extend(std::iter::repeat_n(b'0', point.saturating_sub(count)));
}

/// Append a time in ms as seconds.
pub fn push_time(out: &mut Vec<u8>, time_ms: i64) {
    if time_ms < 0 {
        out.push(b'-');
    }
    let size = time_ms.unsigned_abs();
    push_integer(out, size / 1000);
    let fraction = size % 1000;
    if fraction != 0 {
        let mut buffer = itoa::Buffer::new();
        out.push(b'.');
        out.extend_from_slice(&buffer.format(fraction + 1000).as_bytes()[1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(value: f64) -> String {
        let mut out = Vec::new();
        push_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn time(time_ms: i64) -> String {
        let mut out = Vec::new();
        push_time(&mut out, time_ms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prints_as_prometheus() {
        for (value, text) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e21, "1000000000000000000000"),
            (1.5e-7, "0.00000015"),
            (-12.050, "-12.05"),
            (5e-324, &format!("0.{}5", "0".repeat(323))),
        ] {
            assert_eq!(float(value), text);
        }
        for (at, text) in
            [(0, "0"), (1500, "1.500"), (-1001, "-1.001"), (1_435_781_430_781, "1435781430.781")]
        {
            assert_eq!(time(at), text);
        }
    }

    #[test]
    fn halfway_between_two_shortest_goes_to_the_even_digit_as_go_does() {
        // Go prints these; the standard library rounds such a half up ("...779.3").
        for (bits, text) in [
            (4_832_375_258_181_602_829, "1129114410107779.2"),
            (4_832_375_258_181_602_831, "1129114410107779.8"),
            (4_832_375_258_181_602_833, "1129114410107780.2"),
        ] {
            assert_eq!(float(f64::from_bits(bits)), text);
        }
    }

    /// The two may differ in the last digit of a decimal that is as short and as near: an exact half.
    fn is_the_same_but_for_a_half(value: f64, ours: &str, theirs: &str) -> bool {
        let exact = format!("{value:.60}");
        let digits = exact.trim_end_matches('0');
        let cut = ours.len();
        ours == theirs
            || (ours.len() == theirs.len()
                && ours.parse() == Ok(value)
                && ours[..cut - 1] == theirs[..cut - 1]
                && digits.len() == cut + 1
                && digits.ends_with('5')
                && ours.as_bytes()[cut - 1].is_multiple_of(2))
    }

    proptest! {
        #[test]
        fn any_bits_print_as_the_standard_library(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let (ours, theirs) = (float(value), format!("{value}"));
            prop_assert!(is_the_same_but_for_a_half(value, &ours, &theirs), "{ours} {theirs}");
        }

        #[test]
        fn halves_too(whole in (1u64 << 49)..(1 << 51), negative: bool) {
            // In this range neighbours are 1/8 to 1/4 apart: most quarters are halves of a digit.
            let value = (whole as f64 + 0.25) * if negative { -1.0 } else { 1.0 };
            let (ours, theirs) = (float(value), format!("{value}"));
            prop_assert!(is_the_same_but_for_a_half(value, &ours, &theirs), "{ours} {theirs}");
        }

        #[test]
        fn short_decimals_too(scaled in -10_000_000_000i64..10_000_000_000, power in 0u32..7) {
            let value = scaled as f64 / 10f64.powi(power as i32);
            prop_assert_eq!(float(value), format!("{value}"));
        }
    }
}
