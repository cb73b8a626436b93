use proptest::prelude::*;

use super::*;

fn sums(bytes: &[u8]) -> Sums {
    let mut hasher = Hasher::new(true, &Algorithm::ALL);
    hasher.update(bytes);
    hasher.finish()
}

#[test]
fn known_values() {
    // The check values of the CRC catalogue and of the digests' standards for "123456789".
    let sums = sums(b"123456789");
    assert_eq!(sums.md5, "25f9e794323b453885f5181f1b624d0b");
    assert_eq!(sums.sums[&Algorithm::Crc32], "y/Q5Jg==");
    assert_eq!(sums.sums[&Algorithm::Crc32c], "4waSgw==");
    assert_eq!(sums.sums[&Algorithm::Crc64Nvme], "rosUhgp5mIg=");
    assert_eq!(sums.sums[&Algorithm::Sha1], "98O8HYCOBHMq32eZZczDTKeuNEE=");
    assert_eq!(sums.sums[&Algorithm::Sha256], "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU=");
}

#[test]
fn forms_are_told_apart() {
    assert!(Algorithm::Crc32.well_formed("y/Q5Jg=="));
    assert!(!Algorithm::Crc32.well_formed("rosUhgp5mIg="));
    assert!(!Algorithm::Crc64Nvme.well_formed("not base64"));
    assert_eq!(Algorithm::parse("crc64nvme"), Some(Algorithm::Crc64Nvme));
    assert_eq!(Algorithm::parse("MD4"), None);
    assert_eq!(combine(Algorithm::Sha256, &[("AA==".into(), 1)]), None);
}

proptest! {
    #[test]
    fn parts_combine_to_the_whole(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6)) {
        let whole = sums(&parts.concat());
        for algorithm in Algorithm::ALL.into_iter().filter(|a| a.combines()) {
            let values: Vec<_> =
                parts.iter().map(|p| (sums(p).sums[&algorithm].clone(), p.len() as u64)).collect();
            prop_assert_eq!(combine(algorithm, &values), Some(whole.sums[&algorithm].clone()));
        }
    }
}
