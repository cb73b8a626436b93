use proptest::prelude::*;

use super::*;

const OUTPUTS: [&str; 11] = [
    "image/png",
    "image/webp",
    "image/jpeg",
    "image/gif",
    "image/apng",
    "video/mp4",
    "audio/flac",
    "text/plain",
    "text/plain; charset=utf-8",
    "application/octet-stream",
    "multipart/mixed; boundary=\"a,b;c\"",
];

#[test]
fn a_png() {
    let (as_is, jpeg, webp, none) = (Some(Choice::AsIs), Some(Choice::Jpeg), Some(Choice::Webp), None);
    for (accept, choice) in [
        // Absent, empty, nothing but nonsense.
        (None, as_is),
        (Some(""), as_is),
        (Some("  "), as_is),
        (Some(" , ,"), as_is),
        (Some("nonsense"), as_is),
        (Some("image/"), as_is),
        (Some("/png"), as_is),
        (Some("*/png"), as_is),
        (Some("image/jpeg/x"), as_is),
        (Some("image/jpeg;q=2"), as_is),
        (Some("image/jpeg;q=NaN, a b/c, image/jpeg;q"), as_is),
        (Some("image/jpeg;x=\"open"), as_is),
        (Some("image/jpeg;q=-1"), as_is),
        (Some("image/jpeg;q="), as_is),
        (Some("image/jpeg;q=."), as_is),
        // One range.
        (Some("*/*"), jpeg),
        (Some("image/*"), jpeg),
        (Some("image/jpeg"), jpeg),
        (Some("image/jpg"), jpeg),
        (Some("IMAGE/JPEG; Q=0.5"), jpeg),
        (Some("image/jpeg;"), jpeg),
        (Some("image/png"), as_is),
        (Some("image/webp"), webp),
        (Some("*"), jpeg),
        (Some("application/json"), none),
        (Some("image/gif"), none),
        (Some("image/jpeg;profile=x"), none),
        // Refusals.
        (Some("image/jpeg;q=0"), none),
        (Some("image/jpeg;q=0.000"), none),
        (Some("*/*;q=0"), none),
        (Some("image/jpeg;q=0, */*"), as_is),
        (Some("*/*, image/jpg;q=0"), as_is),
        (Some("image/jpeg;q=0, image/png;q=0, */*"), webp),
        (Some("image/*;q=0, */*"), none),
        (Some("image/*;q=0, image/webp"), webp),
        (Some("image/jpeg;q=0, image/jpeg"), none),
        (Some("image/jpeg, image/jpg;q=0, image/png;q=0.1"), as_is),
        // Preferences.
        (Some("image/png, */*;q=0.1"), as_is),
        (Some("image/png;q=0.2, image/jpeg;q=0.9"), jpeg),
        (Some("image/png, image/jpeg"), jpeg),
        (Some("image/webp, image/png"), as_is),
        (Some("image/webp, image/png, image/jpeg"), jpeg),
        (Some("image/webp, */*;q=0.8"), webp),
        (Some("image/webp;q=0.8, */*;q=0.8"), jpeg),
        (Some("image/webp;q=0.801, */*;q=0.8"), webp),
        (Some("image/jpeg;q=0.0001"), jpeg),
        (Some("image/jpeg;q=.5, image/png;q=.4"), jpeg),
        (Some("image/jpeg;q=0.4, image/jpeg;q=0.6, image/png;q=0.5"), jpeg),
        // The closest range decides, not the highest weight.
        (Some("image/jpeg;q=0.1, image/*;q=0.5, */*"), as_is),
        (Some("*/*, image/*;q=0.1, image/webp;q=0.2"), webp),
        // What browsers and Java send.
        (Some("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"), jpeg),
        (Some("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"), webp),
        (Some("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"), jpeg),
        // Commas and semicolons inside of quotes; what follows the weight.
        (Some("text/x;a=\"image/png;q=1, image/png\";q=0.3, image/webp;q=0.2"), webp),
        (Some("text/x;a=\"\\\",image/png,\\\"\", image/webp;q=0.2"), webp),
        (Some("image/png;q=0.5;image=jpeg;anything, image/jpeg;q=0.4"), as_is),
        (Some("bad member, image/png"), as_is),
        // A tab is white space too; so are spaces around `=`, though they should not be there.
        (Some("image/jpeg\t;\tq = 0 ,\t*/*"), as_is),
    ] {
        assert_eq!(choose(accept, "image/png").ok(), choice, "{accept:?}");
    }
}

#[test]
fn other_outputs() {
    for (accept, have, fits) in [
        ("image/webp", "image/webp", true),
        ("image/png", "image/webp", false),
        ("*/*", "video/mp4", true),
        ("image/*", "video/mp4", false),
        ("video/*;q=0.1", "video/mp4", true),
        ("video/*, video/mp4;q=0", "video/mp4", false),
        ("image/jpeg, audio/flac", "audio/flac", true),
        ("text/plain", "text/plain; charset=utf-8", true),
        ("text/plain;charset=\"UTF-8\"", "text/plain; charset=utf-8", true),
        ("text/plain;charset=latin1", "text/plain; charset=utf-8", false),
        // With the parameter is closer than without.
        ("text/plain, text/plain;charset=utf-8;q=0", "text/plain;charset=utf-8", false),
        ("text/plain;q=0, text/plain;charset=utf-8", "text/plain;charset=utf-8", true),
        ("multipart/mixed", "multipart/mixed; boundary=\"x,y\"", true),
        ("multipart/*", "multipart/mixed; boundary=x", true),
        ("image/*", "multipart/mixed; boundary=x", false),
        ("application/octet-stream", "application/octet-stream", true),
        ("image/png", "image/apng", true),
        ("image/apng", "image/apng", true),
        ("image/png, image/apng;q=0", "image/apng", false),
        ("image/jpeg", "image/apng", false),
        ("image/jpeg, */*;q=0.1", "image/apng", true),
        ("image/jpg", "image/jpeg", true),
        // An output whose type makes no sense.
        ("*/*", "??", true),
        ("image/*", "??", false),
        // Nothing that makes sense is no header.
        ("", "video/mp4", true),
        ("??", "video/mp4", true),
    ] {
        let expected = if fits { Some(Choice::AsIs) } else { None };
        assert_eq!(choose(Some(accept), have).ok(), expected, "{accept} for {have}");
    }
    for have in OUTPUTS {
        assert_eq!(choose(None, have), Ok(Choice::AsIs));
    }
}

#[test]
fn hopeless_headers() {
    for (accept, expected) in [
        (None, false),
        (Some(""), false),
        (Some("??"), false),
        (Some("*/*"), false),
        (Some("image/jpeg"), false),
        (Some("video/webm"), false),
        (Some("application/octet-stream"), false),
        (Some("application/*"), false),
        (Some("multipart/mixed"), false),
        (Some("text/plain;charset=utf-8"), false),
        (Some("application/json, */*;q=0.1"), false),
        (Some("image/*;q=0, image/webp"), false),
        (Some("*/*, image/*;q=0"), false),
        (Some("application/json"), true),
        (Some("*/*;q=0"), true),
        (Some("image/png;q=0"), true),
        (Some("application/json, image/*;q=0"), true),
        (Some("model/gltf-binary"), false),
        // A 3D model is still possible.
        (Some("*/*, image/*;q=0, video/*;q=0, audio/*;q=0, text/*;q=0, application/octet-stream;q=0"), false),
        (Some("font/woff, chemical/x-pdb;q=0.4"), true),
        (Some("image/png;q=0, image/png"), true),
        (
            Some(
                "*/*, image/*;q=0, video/*;q=0, audio/*;q=0, model/*;q=0, text/*;q=0, multipart/*;q=0, \
                 application/octet-stream;q=0",
            ),
            true,
        ),
    ] {
        assert_eq!(hopeless(accept), expected, "{accept:?}");
    }
}

#[test]
fn the_error_says_what_there_is_and_what_was_accepted() {
    let text = |have| choose(Some("application/json"), have).expect_err("does not fit").to_string();
    contains_all(&text("image/png"), &["image/jpeg, image/png or image/webp", "`application/json`", "Accept: */*"]);
    contains_all(&text("video/mp4"), &["can be had as video/mp4", "`application/json`"]);
    contains_all(&NotAcceptable::whatever_comes("font/woff").to_string(), &["pictures, video", "`font/woff`"]);
    let long = format!("font/{}", "ö".repeat(10_000));
    let text = NotAcceptable::whatever_comes(&long).to_string();
    assert!(text.len() < 700 && text.contains("ö...`"), "{text}");
}

fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

fn media_range() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["*/*", "image/*", "image/png", "image/jpeg", "image/jpg", "image/webp", "image/apng"]),
        1 => prop::sample::select(vec!["video/*", "video/mp4", "text/plain", "audio/*", "application/json", "multipart/mixed"]),
    ]
    .prop_map(str::to_owned)
}

/// Members that make sense, as (range, weight in thousandths).
fn members() -> impl Strategy<Value = Vec<(String, u16)>> {
    prop::collection::vec((media_range(), prop_oneof![Just(0u16), Just(1000), 0u16..=1000]), 1..7)
}

fn header(members: &[(String, u16)], space: &str) -> String {
    let member = |(range, weight): &(String, u16)| {
        format!("{space}{range}{space};{space}q={}.{:03}{space}", weight / 1000, weight % 1000)
    };
    members.iter().map(member).collect::<Vec<_>>().join(",")
}

proptest! {
    #[test]
    fn no_header_causes_a_panic(accept in "\\PC*", have in "\\PC*") {
        let choice = choose(Some(&accept), &have);
        if let Err(problem) = choice {
            prop_assert!(!problem.to_string().is_empty());
        }
        hopeless(Some(&accept));
    }

    #[test]
    fn no_header_of_its_characters_causes_a_panic(accept in "[a-z*/;,=\"\\\\q0-9. \t]{0,40}") {
        for have in OUTPUTS {
            if choose(Some(&accept), have).is_ok() {
                prop_assert!(!hopeless(Some(&accept)), "{have} would have fitted");
            }
        }
    }

    #[test]
    fn what_fits_is_never_hopeless(members in members()) {
        let accept = header(&members, "");
        for have in OUTPUTS {
            if choose(Some(&accept), have).is_ok() {
                prop_assert!(!hopeless(Some(&accept)), "{have} would have fitted");
            }
        }
    }

    #[test]
    fn white_space_and_empty_members_change_nothing(members in members(), space in "[ \t]{0,3}") {
        let (tight, wide) = (header(&members, ""), header(&members, &space));
        let holed = format!(",{space},{wide}{space},,");
        for have in OUTPUTS {
            let choice = choose(Some(&tight), have).ok();
            prop_assert_eq!(choose(Some(&wide), have).ok(), choice);
            prop_assert_eq!(choose(Some(&holed), have).ok(), choice);
        }
    }

    #[test]
    fn the_order_of_members_changes_nothing(members in members().prop_shuffle(), seed in any::<prop::sample::Index>()) {
        let mut turned = members.clone();
        turned.rotate_left(seed.index(members.len()));
        for have in OUTPUTS {
            prop_assert_eq!(
                choose(Some(&header(&turned, "")), have).ok(),
                choose(Some(&header(&members, "")), have).ok()
            );
        }
    }

    #[test]
    fn what_is_refused_by_name_is_never_sent(members in members(), at in any::<prop::sample::Index>()) {
        for (refused, choice) in
            [("image/jpeg", Choice::Jpeg), ("image/jpg", Choice::Jpeg), ("image/webp", Choice::Webp), ("image/png", Choice::AsIs)]
        {
            let mut members = members.clone();
            members.insert(at.index(members.len() + 1), (refused.to_owned(), 0));
            prop_assert_ne!(choose(Some(&header(&members, "")), "image/png").ok(), Some(choice));
        }
    }

    #[test]
    fn nonsense_between_members_changes_nothing(members in members(), at in any::<prop::sample::Index>()) {
        for nonsense in ["nonsense", "image/", "image/jpeg;q=7", "a b/c", "*/png"] {
            let mut all = members.iter().map(|member| header(std::slice::from_ref(member), "")).collect::<Vec<_>>();
            all.insert(at.index(all.len() + 1), nonsense.to_owned());
            prop_assert_eq!(
                choose(Some(&all.join(",")), "image/png").ok(),
                choose(Some(&header(&members, "")), "image/png").ok()
            );
        }
    }
}
