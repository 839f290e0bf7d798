//! libsodium opens what is sealed here, seals the same bytes, and refuses the same members.

use claudemesh_keys::{Identity, X25519Secret};
use claudemesh_proto::PublicKey;
use claudemesh_referee::{self as libsodium, Draw, NON_CANONICAL_POINTS, SMALL_ORDER_POINTS};
use claudemesh_seal::{SealError, SealedTopicKey, Sealer, TopicKey};

const CASES: usize = 1_000;

#[test]
fn libsodium_opens_what_is_sealed_and_seals_the_same_bytes() {
    let mut draw = Draw::new(11);
    for _ in 0..CASES {
        let (sender, topic_key): ([u8; 32], [u8; 32]) = (draw.array(), draw.array());
        let (public, secret) = libsodium::keypair(&draw.array());
        let sealed = seal(sender, topic_key, &public).unwrap();
        assert_eq!(sealed.sender.as_bytes(), &libsodium::x25519_base(&sender));
        let recipient = libsodium::secret_to_x25519(&secret);
        let opened = libsodium::box_open(&sealed.boxed, &sealed.nonce, sealed.sender.as_bytes(), &recipient);
        assert_eq!(opened.as_deref(), Some(topic_key.as_slice()));
        let theirs = theirs(&sender, &topic_key, &sealed.nonce, &public);
        assert_eq!(theirs.as_deref(), Some(sealed.boxed.as_slice()));
    }
}

#[test]
fn a_changed_seal_is_opened_by_nobody() {
    let mut draw = Draw::new(12);
    for case in 0..CASES {
        let (public, secret) = libsodium::keypair(&draw.array());
        let mut sealed = seal(draw.array(), draw.array(), &public).unwrap();
        let mut recipient = libsodium::secret_to_x25519(&secret);
        let mut sender = *sealed.sender.as_bytes();
        match case % 4 {
            0 => draw.flip(&mut sealed.boxed),
            1 => draw.flip(&mut sealed.nonce),
            // Without the top bit, which X25519 ignores, and the low three of the secret, which clamping clears.
            2 => draw.flip(&mut sender[..31]),
            _ => draw.flip(&mut recipient[1..31]),
        }
        assert_eq!(libsodium::box_open(&sealed.boxed, &sealed.nonce, &sender, &recipient), None, "case {case}");
    }
}

#[test]
fn both_refuse_the_same_members() {
    let mut draw = Draw::new(13);
    let random: Vec<[u8; 32]> = (0..2 * CASES).map(|_| draw.array()).collect();
    let flipped = (0..CASES).map(|_| {
        let mut key = libsodium::keypair(&draw.array()).0;
        draw.flip(&mut key);
        key
    });
    let mut refused = 0;
    let listed = SMALL_ORDER_POINTS.into_iter().chain(NON_CANONICAL_POINTS);
    for recipient in random.into_iter().chain(flipped).chain(listed) {
        let (sender, topic_key) = ([5; 32], [6; 32]);
        let ours = seal(sender, topic_key, &recipient);
        let nonce = ours.as_ref().map_or([0; 24], |sealed| sealed.nonce);
        let theirs = theirs(&sender, &topic_key, &nonce, &recipient);
        assert_eq!(ours.as_ref().ok().map(|sealed| sealed.boxed.to_vec()), theirs, "{recipient:02x?}");
        refused += usize::from(matches!(ours, Err(SealError::UnusableRecipient(_))));
    }
    assert!((2 * CASES..3 * CASES).contains(&refused), "{refused} refused");
}

#[test]
fn listed_points_are_refused_as_members() {
    for recipient in SMALL_ORDER_POINTS.into_iter().chain(NON_CANONICAL_POINTS) {
        assert!(matches!(seal([5; 32], [6; 32], &recipient), Err(SealError::UnusableRecipient(_))), "{recipient:02x?}");
    }
}

#[test]
fn every_seal_has_another_nonce() {
    let recipient = Identity::from_seed([1; 32]).public();
    let [a, b] = [(); 2].map(|()| seal([5; 32], [6; 32], recipient.as_bytes()).unwrap());
    assert_ne!(a.nonce, b.nonce);
    assert_ne!(a.boxed, b.boxed);
}

fn seal(sender: [u8; 32], topic_key: [u8; 32], recipient: &[u8; 32]) -> Result<SealedTopicKey, SealError> {
    let sealer = Sealer::from_secret(X25519Secret::from_bytes(sender));
    sealer.seal(&TopicKey::from_bytes(topic_key), &PublicKey::from_bytes(*recipient))
}

fn theirs(sender: &[u8; 32], topic_key: &[u8; 32], nonce: &[u8; 24], recipient: &[u8; 32]) -> Option<Vec<u8>> {
    libsodium::box_seal(topic_key, nonce, &libsodium::public_to_x25519(recipient)?, sender)
}
