//! Finding bytes in files however they are spelled there.

use std::path::PathBuf;

use claudemesh_proto::text::{base64, base64url};

/// Where `bytes` stand in `files`, and as what.
pub(crate) fn places(files: &[(PathBuf, Vec<u8>)], bytes: &[u8]) -> Vec<String> {
    let spellings = spellings(bytes);
    let found = |content: &[u8], spelled: &[u8]| content.windows(spelled.len()).any(|window| window == spelled);
    let mut places = Vec::new();
    for (path, content) in files {
        for (how, spelled) in &spellings {
            if found(content, spelled) {
                places.push(format!("{} as {how}", path.display()));
            }
        }
    }
    places
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

/// The bytes themselves, and every text that programs make of them.
fn spellings(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let joined =
        |one: &dyn Fn(&u8) -> String, by: &str| bytes.iter().map(one).collect::<Vec<_>>().join(by).into_bytes();
    let mut spellings = vec![
        ("bytes", bytes.to_vec()),
        ("hex", joined(&|byte| format!("{byte:02x}"), "")),
        ("HEX", joined(&|byte| format!("{byte:02X}"), "")),
        ("numbers", joined(&u8::to_string, ",")),
        ("numbers", joined(&u8::to_string, ", ")),
    ];
    for before in 0..3 {
        spellings.push(("base64", inside(bytes, before, base64)));
        spellings.push(("base64url", inside(bytes, before, base64url)));
    }
    spellings
}

/// The characters that base64 makes of `bytes` alone when `before` others (modulo 3) stand before and any after.
fn inside(bytes: &[u8], before: usize, encode: impl Fn(&[u8]) -> String) -> Vec<u8> {
    let all = encode(&[&vec![0; before], bytes].concat());
    let (first, end) = ((before * 8).div_ceil(6), (before + bytes.len()) * 8 / 6);
    all.as_bytes()[first..end].to_vec()
}

#[test]
fn every_spelling_is_found_inside_other_text() {
    let secret = [251, 255, 190, 7, 0, 99, 200, 31, 1, 2];
    for before in 0..6 {
        let around = [&vec![9; before], &secret[..], &[77, 78]].concat();
        let upper = format!("{around:02X?}").replace([',', ' ', '[', ']'], "");
        for content in [
            around.clone(),
            base64(&around).into(),
            base64url(&around).into(),
            upper.into(),
            format!("{around:?}").into(),
        ] {
            assert_ne!(places(&[("file".into(), content.clone())], &secret), Vec::<String>::new(), "{content:?}");
            assert_eq!(places(&[("file".into(), content)], &[251, 255, 191, 7, 0, 99]), Vec::<String>::new());
        }
    }
    assert_eq!(hex("fb00Ff"), [251, 0, 255]);
}
