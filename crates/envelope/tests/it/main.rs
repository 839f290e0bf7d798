//! Direct messages, topic bodies and topic keys, against fixed vectors and libsodium itself.

#[cfg(test)]
mod differential;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod vectors;
