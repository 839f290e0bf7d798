//! What libsodium seals is opened here and the other way round, to the same bytes; what it does not open is not opened here.

use claudemesh_envelope::{
    Channel, Sealed, SealedTopicKey, TopicKey, open_body, open_topic_key, pass_topic_key, seal_body,
};
use claudemesh_keys::{Identity, X25519Public};
use claudemesh_proto::PublicKey;
use claudemesh_referee::{self as libsodium, Draw, NON_CANONICAL_POINTS, SMALL_ORDER_POINTS, SMALL_ORDER_U};

const CASES: usize = 1_000;

#[test]
fn direct_messages_are_opened_both_ways() {
    let mut draw = Draw::new(21);
    for _ in 0..CASES {
        let (own, peer) = (Party::draw(&mut draw), Party::draw(&mut draw));
        let plaintext = draw.bytes(400);
        let channel = own.channel(&peer.public).unwrap();

        let ours = channel.seal(&plaintext).unwrap();
        let opened = libsodium::box_open(&ours.ciphertext, &ours.nonce, &own.x25519_public(), &peer.x25519_secret);
        assert_eq!(opened.as_ref(), Some(&plaintext));
        let same = libsodium::box_seal(&plaintext, &ours.nonce, &peer.x25519_public(), &own.x25519_secret);
        assert_eq!(same, Some(ours.ciphertext));

        let nonce = draw.array();
        let ciphertext = libsodium::box_seal(&plaintext, &nonce, &own.x25519_public(), &peer.x25519_secret).unwrap();
        assert_eq!(channel.open(&Sealed { nonce, ciphertext }).unwrap(), plaintext);
    }
}

#[test]
fn changed_direct_messages_are_judged_alike() {
    let mut draw = Draw::new(22);
    let mut opened = 0;
    for case in 0..2 * CASES {
        let (mut own, peer) = (Party::draw(&mut draw), Party::draw(&mut draw));
        let mut peer_key = peer.public;
        let mut sealed = own.channel(&peer.public).unwrap().seal(&draw.bytes(60)).unwrap();
        match case % 8 {
            0 => {}
            1 => draw.flip(&mut sealed.ciphertext),
            2 => draw.flip(&mut sealed.nonce),
            3 => sealed.ciphertext.truncate(draw.below(sealed.ciphertext.len())),
            4 => sealed.ciphertext.push(0),
            5 => draw.flip(&mut peer_key),
            6 => own = Party::draw(&mut draw),
            _ => peer_key = Party::draw(&mut draw).public,
        }
        let ours = own.channel(&peer_key).and_then(|channel| channel.open(&sealed).ok());
        let theirs = libsodium::public_to_x25519(&peer_key)
            .and_then(|public| libsodium::box_open(&sealed.ciphertext, &sealed.nonce, &public, &own.x25519_secret));
        assert_eq!(ours, theirs, "case {case}");
        opened += usize::from(ours.is_some());
    }
    assert_eq!(opened, 2 * CASES / 8, "only the unchanged are opened");
}

#[test]
fn peers_that_libsodium_refuses_have_no_channel() {
    let own = Party::draw(&mut Draw::new(23));
    for key in SMALL_ORDER_POINTS.into_iter().chain(NON_CANONICAL_POINTS) {
        assert!(own.channel(&key).is_none(), "{key:02x?}");
        assert_eq!(libsodium::public_to_x25519(&key), None, "{key:02x?}");
    }
}

#[test]
fn topic_bodies_are_opened_both_ways_and_judged_alike() {
    let mut draw = Draw::new(24);
    for case in 0..2 * CASES {
        let mut key: [u8; 32] = draw.array();
        let plaintext = draw.bytes(400);
        let mut sealed = seal_body(&TopicKey::from_bytes(key), &plaintext).unwrap();
        assert_eq!(libsodium::secretbox_open(&sealed.ciphertext, &sealed.nonce, &key).as_ref(), Some(&plaintext));
        assert_eq!(libsodium::secretbox_seal(&plaintext, &sealed.nonce, &key), sealed.ciphertext);
        sealed.nonce = draw.array();
        sealed.ciphertext = libsodium::secretbox_seal(&plaintext, &sealed.nonce, &key);
        assert_eq!(open_body(&TopicKey::from_bytes(key), &sealed).unwrap(), plaintext);
        match case % 4 {
            0 => draw.flip(&mut sealed.ciphertext),
            1 => draw.flip(&mut sealed.nonce),
            2 => draw.flip(&mut key),
            _ => sealed.ciphertext.truncate(draw.below(sealed.ciphertext.len())),
        }
        let theirs = libsodium::secretbox_open(&sealed.ciphertext, &sealed.nonce, &key);
        assert_eq!(theirs, None, "case {case}");
        assert_eq!(open_body(&TopicKey::from_bytes(key), &sealed).ok(), theirs, "case {case}");
    }
}

#[test]
fn sealed_topic_keys_are_opened_both_ways_and_judged_alike() {
    let mut draw = Draw::new(25);
    let mut opened = 0;
    for case in 0..2 * CASES {
        let (own, mut peer) = (Party::draw(&mut draw), Party::draw(&mut draw));
        let topic_key: [u8; 32] = draw.array();
        let passed = pass_topic_key(&own.identity, &TopicKey::from_bytes(topic_key), &peer.identity.public()).unwrap();
        assert_eq!(peer.libsodium_opens(&passed).as_deref(), Some(topic_key.as_slice()));

        let nonce = draw.array();
        let boxed = libsodium::box_seal(&topic_key, &nonce, &peer.x25519_public(), &own.x25519_secret).unwrap();
        let sender = X25519Public::from_bytes(own.x25519_public());
        let mut theirs = SealedTopicKey { sender, boxed: boxed.try_into().unwrap(), nonce };
        assert_eq!(open_topic_key(&peer.identity, &theirs).unwrap().expose_bytes(), &topic_key);

        match case % 5 {
            0 => draw.flip(&mut theirs.boxed),
            1 => draw.flip(&mut theirs.nonce),
            2 => {
                let mut sender = *theirs.sender.as_bytes();
                draw.flip(&mut sender);
                theirs.sender = X25519Public::from_bytes(sender);
            }
            3 => theirs.sender = X25519Public::from_bytes(SMALL_ORDER_U[draw.below(SMALL_ORDER_U.len())]),
            _ => peer = Party::draw(&mut draw),
        }
        let ours = open_topic_key(&peer.identity, &theirs).ok().map(|key| key.expose_bytes().to_vec());
        assert_eq!(ours, peer.libsodium_opens(&theirs), "case {case}");
        opened += usize::from(ours.is_some());
    }
    // A flip of the sender's top bit changes nothing: X25519 ignores it.
    assert!(opened < CASES / 50, "{opened} opened");
}

#[test]
fn a_sender_of_small_order_is_refused_although_the_box_would_open() {
    // With such a sender the X25519 result is zero whoever opens, so anybody can make this box.
    let zero_key = zero_box_key();
    let peer = Party::draw(&mut Draw::new(26));
    for u in SMALL_ORDER_U {
        let boxed = libsodium::secretbox_seal(&[9; 32], &[8; 24], &zero_key).try_into().unwrap();
        let forged = SealedTopicKey { sender: X25519Public::from_bytes(u), boxed, nonce: [8; 24] };
        assert!(open_topic_key(&peer.identity, &forged).is_err(), "{u:02x?}");
        assert_eq!(peer.libsodium_opens(&forged), None, "{u:02x?}");
    }
}

fn zero_box_key() -> [u8; 32] {
    use crypto_secretbox::{Kdf, XSalsa20Poly1305};
    XSalsa20Poly1305::kdf(&[0; 32].into(), &[0; 16].into()).into()
}

/// One identity, as both libraries hold it.
struct Party {
    identity: Identity,
    public: [u8; 32],
    x25519_secret: [u8; 32],
}

impl Party {
    fn draw(draw: &mut Draw) -> Self {
        let seed = draw.array();
        let (public, secret) = libsodium::keypair(&seed);
        let x25519_secret = libsodium::secret_to_x25519(&secret);
        Self { identity: Identity::from_seed(seed), public, x25519_secret }
    }

    fn channel(&self, peer: &[u8; 32]) -> Option<Channel> {
        Channel::new(&self.identity, &PublicKey::from_bytes(*peer)).ok()
    }

    fn x25519_public(&self) -> [u8; 32] {
        libsodium::public_to_x25519(&self.public).unwrap()
    }

    fn libsodium_opens(&self, sealed: &SealedTopicKey) -> Option<Vec<u8>> {
        libsodium::box_open(&sealed.boxed, &sealed.nonce, sealed.sender.as_bytes(), &self.x25519_secret)
    }
}
