use super::*;

/// The file for editors is the schema of this code. `UPDATE_SCHEMA=1` writes it.
#[test]
fn the_committed_schema_is_current() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/comfy-deploy.schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&file, schema_text()).expect("write");
    }
    let committed = std::fs::read_to_string(&file).expect("examples/comfy-deploy.schema.json");
    assert!(committed == schema_text(), "run this test with UPDATE_SCHEMA=1");
}

#[test]
fn every_pattern_compiles() {
    fn patterns(value: &Json, found: &mut Vec<String>) {
        if let Some(pattern) = value.get("pattern").and_then(Json::as_str) {
            found.push(pattern.to_owned());
        }
        match value {
            Json::Object(map) => map.values().for_each(|v| patterns(v, found)),
            Json::Array(items) => items.iter().for_each(|v| patterns(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    patterns(schema(), &mut found);
    assert!(found.len() > 15);
    for pattern in found {
        assert!(regex_lite::Regex::new(&pattern).is_ok(), "{pattern}");
    }
}
