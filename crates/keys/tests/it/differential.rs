//! The same question to this crate and to libsodium: they must answer alike, in bytes and in what they refuse.

use claudemesh_keys::{Identity, X25519Public, X25519Secret, verify, x25519_public};
use claudemesh_proto::{PublicKey, Signature};
use claudemesh_referee::{self as libsodium, Draw, NON_CANONICAL_POINTS, SMALL_ORDER_POINTS, SMALL_ORDER_U};
use curve25519_dalek::constants::EIGHT_TORSION;
use curve25519_dalek::edwards::CompressedEdwardsY;

const CASES: usize = 1_500;

/// ℓ, little-endian.
const L: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn the_referee_is_the_libsodium_we_follow() {
    assert_eq!(libsodium::version(), "1.0.22");
}

#[test]
fn identities_signatures_and_conversions_have_the_same_bytes() {
    let mut draw = Draw::new(1);
    for _ in 0..CASES {
        let seed = draw.array();
        let message = draw.bytes(300);
        let identity = Identity::from_seed(seed);
        let (public, secret) = libsodium::keypair(&seed);
        assert_eq!(identity.public().as_bytes(), &public);
        assert_eq!(identity.sign(&message).as_bytes(), &libsodium::sign(&secret, &message));
        assert!(libsodium::verify(&public, &message, identity.sign(&message).as_bytes()));
        let theirs = Signature::from_bytes(libsodium::sign(&secret, &message));
        assert_eq!(verify(&identity.public(), &message, &theirs), Ok(()));
        assert_eq!(identity.x25519_secret().expose_bytes(), &libsodium::secret_to_x25519(&secret));
        assert_eq!(convert(&public), libsodium::public_to_x25519(&public));
        assert_eq!(convert(&public), Some(*identity.x25519_secret().public().as_bytes()));
    }
}

#[test]
fn changed_signatures_keys_and_messages_are_judged_alike() {
    let mut draw = Draw::new(2);
    let mut accepted = 0;
    for case in 0..4 * CASES {
        let (public, secret) = libsodium::keypair(&draw.array());
        let mut message = draw.bytes(80);
        let mut signature = libsodium::sign(&secret, &message);
        let mut key = public;
        change(&mut draw, case % 12, &mut key, &mut message, &mut signature);
        let theirs = libsodium::verify(&key, &message, &signature);
        let ours = verify(&PublicKey::from_bytes(key), &message, &Signature::from_bytes(signature)).is_ok();
        assert_eq!(ours, theirs, "case {case}: key {key:02x?} message {message:02x?} signature {signature:02x?}");
        assert_eq!(convert(&key), libsodium::public_to_x25519(&key), "case {case}: key {key:02x?}");
        accepted += usize::from(ours);
    }
    // Every twelfth is left as it was; nearly all others are refused.
    assert!((4 * CASES / 12..CASES).contains(&accepted), "{accepted} accepted");
}

#[test]
fn any_bytes_are_converted_or_refused_alike() {
    let mut draw = Draw::new(3);
    let random: Vec<[u8; 32]> = (0..4 * CASES).map(|_| draw.array()).collect();
    let mixed = (0..CASES).map(|i| mixed_order(&libsodium::keypair(&draw.array()).0, i % 8));
    let listed = SMALL_ORDER_POINTS.into_iter().chain(NON_CANONICAL_POINTS);
    let mut converted = 0;
    for key in random.into_iter().chain(mixed).chain(listed) {
        assert_eq!(convert(&key), libsodium::public_to_x25519(&key), "{key:02x?}");
        converted += usize::from(convert(&key).is_some());
    }
    assert!(converted > CASES / 8, "{converted} converted");
}

#[test]
fn listed_points_are_refused_by_both() {
    for key in SMALL_ORDER_POINTS.into_iter().chain(NON_CANONICAL_POINTS) {
        assert_eq!((convert(&key), libsodium::public_to_x25519(&key)), (None, None), "{key:02x?}");
        assert!(claudemesh_keys::VerifyingKey::decode(&PublicKey::from_bytes(key)).is_err(), "{key:02x?}");
    }
}

#[test]
fn mixed_order_keys_are_refused_by_both() {
    for torsion in 1..8 {
        let key = mixed_order(&libsodium::keypair(&[7; 32]).0, torsion);
        assert_eq!((convert(&key), libsodium::public_to_x25519(&key)), (None, None), "torsion {torsion}");
    }
}

#[test]
fn box_keys_have_the_same_bytes_or_are_refused_alike() {
    let mut draw = Draw::new(4);
    let non_canonical = (0..19).map(|above| {
        let mut u = [0xff; 32];
        (u[0], u[31]) = (0xed + above, 0x7f);
        u
    });
    let listed: Vec<[u8; 32]> = SMALL_ORDER_U.into_iter().chain(non_canonical).collect();
    let with_top_bit = listed.iter().map(|u| {
        let mut u = *u;
        u[31] |= 0x80;
        u
    });
    let random: Vec<[u8; 32]> = (0..2 * CASES).map(|_| draw.array()).collect();
    let mut refused = 0;
    for public in listed.iter().copied().chain(with_top_bit).chain(random) {
        let secret = draw.array();
        let ours = X25519Secret::from_bytes(secret).agree(&X25519Public::from_bytes(public));
        let ours = ours.ok().map(|key| *key.expose_bytes());
        assert_eq!(ours, libsodium::box_key(&public, &secret), "{public:02x?}");
        assert_eq!(X25519Secret::from_bytes(secret).public().as_bytes(), &libsodium::x25519_base(&secret));
        refused += usize::from(ours.is_none());
    }
    // The seven of SMALL_ORDER_U, p and p + 1 a second time among the non-canonical, and all nine with the top bit.
    assert_eq!(refused, 18);
}

fn change(draw: &mut Draw, how: usize, key: &mut [u8; 32], message: &mut Vec<u8>, signature: &mut [u8; 64]) {
    let (r, s) = signature.split_at_mut(32);
    match how {
        0 => {}
        1 => draw.flip(r),
        2 => draw.flip(s),
        3 => draw.flip(key),
        4 => draw.flip(message),
        5 => add_l(s),
        6 => message.push(0),
        7 => message.truncate(message.len() / 2),
        8 => r.copy_from_slice(&SMALL_ORDER_POINTS[draw.below(SMALL_ORDER_POINTS.len())]),
        9 => *key = SMALL_ORDER_POINTS[draw.below(SMALL_ORDER_POINTS.len())],
        10 => *key = NON_CANONICAL_POINTS[draw.below(NON_CANONICAL_POINTS.len())],
        _ => *key = mixed_order(key, 1 + draw.below(7)),
    }
}

/// The malleable twin of S.
fn add_l(s: &mut [u8]) {
    let mut carry = 0_u16;
    for (byte, l) in s.iter_mut().zip(L) {
        let sum = u16::from(*byte) + u16::from(l) + carry;
        [*byte, _] = sum.to_le_bytes();
        carry = sum >> 8;
    }
}

fn mixed_order(key: &[u8; 32], torsion: usize) -> [u8; 32] {
    (CompressedEdwardsY(*key).decompress().unwrap() + EIGHT_TORSION[torsion]).compress().to_bytes()
}

fn convert(key: &[u8; 32]) -> Option<[u8; 32]> {
    x25519_public(&PublicKey::from_bytes(*key)).ok().map(|public| *public.as_bytes())
}
