//! Project Wycheproof's Ed25519 and X25519 sets.

use claudemesh_keys::{X25519Public, X25519Secret, verify};
use claudemesh_proto::{PublicKey, Signature};
use crypto_secretbox::{Kdf, XSalsa20Poly1305};
use wycheproof::{TestResult, eddsa, xdh};

#[test]
fn ed25519_signatures_hold_exactly_when_valid() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut seen = 0;
    for group in set.test_groups {
        let key = PublicKey::from_bytes(group.key.pk.as_ref().try_into().unwrap());
        for test in group.tests {
            // A signature of another length is refused where bytes become a `Signature`.
            let signature = <[u8; 64]>::try_from(test.sig.as_ref()).map(Signature::from_bytes);
            let holds = signature.is_ok_and(|signature| verify(&key, &test.msg, &signature).is_ok());
            assert_eq!(holds, test.result == TestResult::Valid, "case {}: {}", test.tc_id, test.comment);
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} cases");
}

#[test]
fn x25519_agrees_or_refuses_a_zero_result() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let mut seen = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let Ok(public) = <[u8; 32]>::try_from(test.public_key.as_ref()) else { continue };
        let secret = X25519Secret::from_bytes(test.private_key.as_ref().try_into().unwrap());
        let shared: [u8; 32] = test.shared_secret.as_ref().try_into().unwrap();
        let expected = (shared != [0; 32]).then(|| XSalsa20Poly1305::kdf(&shared.into(), &[0; 16].into()).into());
        let agreed = secret.agree(&X25519Public::from_bytes(public)).ok().map(|key| *key.expose_bytes());
        assert_eq!(agreed, expected, "case {}: {}", test.tc_id, test.comment);
        seen += 1;
    }
    assert!(seen > 400, "only {seen} cases");
}
