use super::*;

fn round(text: &str) -> String {
    dumps(&parse(text).unwrap())
}

#[test]
fn writes_as_python_does() {
    assert_eq!(round(r#"{"a":[1,2.0,true,null],"b":"x"}"#), r#"{"a": [1, 2.0, true, null], "b": "x"}"#);
    assert_eq!(round("[NaN, Infinity, -Infinity]"), "[NaN, Infinity, -Infinity]");
    assert_eq!(round("\"\u{e9}\u{1f600}\\n\""), r#""\u00e9\ud83d\ude00\n""#);
    assert_eq!(round("18446744073709551615"), "18446744073709551615");
    assert_eq!(round("{}"), "{}");
}

#[test]
fn floats_look_like_pythons() {
    for (text, shown) in [
        ("1e16", "1e+16"),
        ("1e15", "1000000000000000.0"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("1.5e300", "1.5e+300"),
        ("-0.0", "-0.0"),
        ("0.1", "0.1"),
    ] {
        assert_eq!(round(text), shown);
    }
}

#[test]
fn refuses_what_python_refuses() {
    for text in
        ["", "{", "[1,]", "{\"a\":1,}", "01", "1.", "+1", "\"\n\"", "nul", "{\"a\" 1}", "1 2", "\u{feff}1", "'a'"]
    {
        assert!(parse(text).is_err(), "{text:?}");
    }
    assert!(parse(&"[".repeat(2_000)).is_err());
}

#[test]
fn equal_keys_keep_the_place_of_the_first_and_the_value_of_the_last() {
    assert_eq!(round(r#"{"a":1,"b":2,"a":3}"#), r#"{"a": 3, "b": 2}"#);
}

#[test]
fn repr_quotes_like_python() {
    assert_eq!(repr(&Value::from("it's")), "\"it's\"");
    assert_eq!(repr(&Value::from("a'\"b")), "'a\\'\"b'");
    assert_eq!(repr(&parse(r#"{"a":[null,true]}"#).unwrap()), "{'a': [None, True]}");
    assert_eq!(str_of(&Value::from("plain")), "plain");
}

#[test]
fn numbers_compare_by_value() {
    assert!(Value::Int(1).equals(&Value::Float(1.0)));
    assert!(Value::Bool(true).equals(&Value::Int(1)));
    assert!(!Value::from("1").equals(&Value::Int(1)));
    assert!(!Value::Float(f64::NAN).equals(&Value::Float(f64::NAN)));
}
