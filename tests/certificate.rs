//! Guards the certificate of a destruction: what cannot be handed out is not found out when all is gone.

use strongroom::operation::certificate;

#[test]
fn a_certificate_that_cannot_be_written_is_told_before_anything_is_destroyed() {
    let place = crate::cli::Place::new();
    let data = place.path("data");
    std::fs::write(&data, b"data").unwrap();
    place.ok(&["backup", "--source", "s", data.to_str().unwrap()]);
    place.ok(&["tenant", "destroy", "request", "t", "--reason", "x", "--after", "0h"]);
    let file = |name: &str| place.path(name).to_str().unwrap().to_owned();
    let execute =
        |certificate: &str| ["tenant", "destroy", "execute", "t", "--certificate", certificate].map(str::to_owned);
    let run = |certificate: &str| {
        let arguments = execute(certificate);
        place.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    std::fs::write(file("html.html"), b"precious").unwrap();
    std::fs::write(file("json.json"), b"precious").unwrap();
    std::os::unix::fs::symlink("nowhere", file("link.json")).unwrap();
    for certificate in [file("no/such/folder/c"), file("html"), file("json"), file("link"), "/proc/c".into()] {
        let output = run(&certificate);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(20), "{certificate}: {said}");
        assert!(said.contains("nothing was destroyed"), "{certificate}: {said}");
        assert_eq!(place.ok(&["cat", &format!("latest:{}", data.display())]), "data");
    }
    assert_eq!(std::fs::read(file("html.html")).unwrap(), b"precious");
    assert_eq!(std::fs::read(file("json.json")).unwrap(), b"precious");
    assert_eq!(run(&file("c")).status.code(), Some(0));
    let certificate = std::fs::read_to_string(file("c.json")).unwrap();
    certificate::verify(&certificate).unwrap();
    // Whoever lost it gets it again, by the name too; and where it is, nothing is written.
    for name in ["c", "again"] {
        assert_eq!(run(&file(name)).status.code(), Some(0), "{name}");
        assert_eq!(std::fs::read_to_string(file(&format!("{name}.json"))).unwrap(), certificate);
        assert!(std::fs::read_to_string(file(&format!("{name}.html"))).unwrap().contains("Certificate of destruction"));
    }
    assert_eq!(run(&file("json")).status.code(), Some(20));
    assert_eq!(std::fs::read(file("json.json")).unwrap(), b"precious");
    // The name is another tenant's now: that one is not taken for destroyed.
    place.ok(&["tenant", "create", "t"]);
    assert_ne!(run(&file("c")).status.code(), Some(0));
    place.ok(&["tenant", "show", "t"]);
}
