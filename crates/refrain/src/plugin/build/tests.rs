use super::*;

fn folder(files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let file = dir.path().join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "{}").unwrap();
    }
    dir
}

#[test]
fn a_folder_tells_its_language_by_the_file_that_every_project_has() {
    for (file, language) in [
        ("Cargo.toml", Language::Rust),
        ("package.json", Language::Js),
        ("app.py", Language::Python),
        ("policy.c", Language::C),
    ] {
        let dir = folder(&[file, "wit/world.wit"]);
        assert_eq!(Project::open(dir.path()).unwrap().language, language, "{file}");
    }
}

#[test]
fn a_folder_that_can_not_be_built_is_told_what_is_missing() {
    for (files, expected) in
        [(&["README.md", "wit/world.wit"][..], "policy.c (C)"), (&["app.py"], "has no folder wit/")]
    {
        let dir = folder(files);
        let error = Project::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(Project::open(Path::new("/nowhere")).err().unwrap().to_string().contains("no folder /nowhere"));
}

#[test]
fn bindings_belong_to_the_wit_that_they_were_generated_from() {
    let dir = folder(&["world.wit", "deps/a/b.wit"]);
    let hash = c::hash(dir.path()).unwrap();
    assert_eq!(hash, c::hash(dir.path()).unwrap());

    fs::rename(dir.path().join("deps/a/b.wit"), dir.path().join("deps/a/c.wit")).unwrap();
    assert_ne!(hash, c::hash(dir.path()).unwrap(), "another name");
    fs::rename(dir.path().join("deps/a/c.wit"), dir.path().join("deps/a/b.wit")).unwrap();
    assert_eq!(hash, c::hash(dir.path()).unwrap());
    fs::write(dir.path().join("deps/a/b.wit"), "package a:b;").unwrap();
    assert_ne!(hash, c::hash(dir.path()).unwrap(), "another text");
}

#[test]
fn what_is_in_the_making_is_gone_afterwards() {
    let dir = folder(&["keep"]);
    let staging = Staging::beside(&dir.path().join("policy.wasm")).unwrap();
    fs::write(staging.0.join("module.wasm"), "half").unwrap();
    drop(staging);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["keep"]);
}
