//! Identities, verification and conversion, against fixed vectors, Wycheproof and libsodium itself.

#[cfg(test)]
mod crafted;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod wycheproof_sets;
