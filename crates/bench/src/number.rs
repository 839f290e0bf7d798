//! From counts to floating point, in one place.

/// A count as a floating-point number: exact up to 2^53, far above anything counted here.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "figures have three digits that matter")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// The same for a length.
pub(crate) fn float_len(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}
