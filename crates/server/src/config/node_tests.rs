//! Settings of nodes: what is read, what is refused and how it is told.

use super::*;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    nodes: NodesFile,
    label: Vec<LabelFile>,
    provider: Vec<ProviderFile>,
    image: Vec<ImageFile>,
}

fn load(text: &str) -> Result<Option<NodeConfig>, String> {
    let file: File = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    let files = NodeFiles {
        nodes: file.nodes,
        labels: file.label,
        providers: file.provider,
        images: file.image,
    };
    filled_in(files, Path::new("/s"))
}

/// The settings of docs/nodes.md.
fn documented() -> String {
    let page = include_str!("../../../../docs/nodes.md");
    page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

#[test]
fn the_documented_settings_load_and_name_the_defaults() {
    let config = load(&documented()).unwrap().unwrap();
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.settings.labels[0].name.as_str(), "devtest-node");
    assert!(config.kinds.values().any(|k| matches!(k, ProviderKind::Local(_))));
    let fixed = config.kinds.values().find_map(|k| match k {
        ProviderKind::Fixed(fixed) => Some(fixed),
        ProviderKind::Local(_) | ProviderKind::Libvirt(_) => None,
    });
    let machine = &fixed.unwrap().machines[1];
    assert_eq!((machine.target.as_str(), machine.port), ("root@192.0.2.8", 2222));
    let vms = config.kinds.values().find_map(|k| match k {
        ProviderKind::Libvirt(vms) => Some(vms),
        ProviderKind::Local(_) | ProviderKind::Fixed(_) => None,
    });
    let vms = vms.unwrap();
    assert_eq!((vms.images.len(), vms.shapes.len()), (3, 3));
    assert_eq!(vms.state, Path::new("/s/providers/vms"));
    assert_eq!(vms.boot_limit, toci_edge::provider::libvirt::config::BOOT_LIMIT);
    assert!(load("").unwrap().is_none());
}

#[test]
fn what_makes_no_sense_is_told() {
    let label = "[[label]]\nname = \"a\"\n";
    let local = "[[provider]]\nname = \"p\"\nkind = \"local\"\n";
    let pool = "[[provider.pool]]\nlabel = \"a\"\n";
    let fixed = "[[provider]]\nname = \"p\"\nkind = \"static\"\nssh_key_file = \"/k\"\nknown_hosts_file = \"/h\"\n";
    for (text, expected) in [
        (label.to_owned(), "label a: no [[provider]] has"),
        (format!("{label}{label}"), "label a is there twice"),
        (format!("{label}{local}{pool}"), "provider p: max_servers is missing"),
        (
            format!("{label}{local}max_servers = 1\n[[provider.pool]]\nlabel = \"b\"\n"),
            "provider p: its pool's label b is no [[label]]",
        ),
        (
            format!("{label}{local}max_servers = 2\naddresses = \"198.18.1.1-198.18.1.3\"\n{pool}"),
            "provider p: addresses has 1 pairs",
        ),
        (
            format!("{label}{local}max_servers = 2\naddresses = \"198.18.1.9\"\n{pool}"),
            "provider p: addresses is `198.18.1.9`: use FIRST-LAST",
        ),
        (
            format!("{label}{local}max_servers = 2\ncleanup = \"x\"\n{pool}"),
            "provider p: cleanup means nothing for its kind",
        ),
        (
            format!("{label}{local}max_servers = 2\ncgroup = \"x\"\n{pool}"),
            "provider p: cgroup `x` is not absolute",
        ),
        (
            format!("{label}{local}max_servers = 2\n{pool}disk_mib = 0\n"),
            "provider p: pool a: processes, memory_mib, disk_mib, cpus are at least 1",
        ),
        (
            format!("{label}{fixed}cleanup = \"x\"\n{pool}disk_mib = 1\nmachines = [\"a@h\"]\n"),
            "provider p: pool.disk_mib means nothing for its kind",
        ),
        (
            format!("{label}{fixed}{pool}machines = [\"root@h\"]\n"),
            "provider p: cleanup is missing",
        ),
        (
            format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"h\"]\n"),
            "provider p: machine `h`: use USER@HOST",
        ),
        (
            format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"a@-oProxyCommand\"]\n"),
            "provider p: machine `a@-oProxyCommand`: use USER@HOST",
        ),
        (
            format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"a@h\", \"a@h:22\"]\n"),
            "provider p: machine a@h:22 is there twice",
        ),
        (
            format!("{label}{local}max_servers = 2\nmax_server = 2\n{pool}"),
            "unknown field `max_server`",
        ),
    ] {
        let error = load(&text).expect_err(&text);
        assert!(error.starts_with(expected), "{text}\ngave {error}");
    }
}

#[test]
fn virtual_machines_that_make_no_sense_are_told() {
    let image = "[[image]]\nname = \"d\"\nkind = \"file\"\nfile = \"/d.qcow2\"\n";
    let label = "[[label]]\nname = \"a\"\n";
    let vms = "[[provider]]\nname = \"p\"\nkind = \"libvirt\"\nmax_servers = 2\n";
    let pool = "[[provider.pool]]\nlabel = \"a\"\nimage = \"d\"\n";
    let folder = "folder = \"/f\"\n";
    for (text, expected) in [
        (format!("{image}{label}{vms}{pool}"), "provider p: folder is missing"),
        (format!("{image}{label}{vms}folder = \"f\"\n{pool}"), "provider p: folder is `f`: use an absolute"),
        (format!("{image}{label}{vms}{folder}uri = \"xen:///\"\n{pool}"), "provider p: uri is `xen:///`"),
        (
            format!("{image}{label}{vms}{folder}uri = \"qemu+ssh://h/system\"\n{pool}"),
            "provider p: network or bridge is missing",
        ),
        (
            format!("{image}{label}{vms}{folder}network = \"n\"\nbridge = \"b\"\n{pool}"),
            "provider p: both network and bridge",
        ),
        (format!("{image}{label}{vms}{folder}ssh_user = \"-o\"\n{pool}"), "provider p: ssh_user is `-o`"),
        (
            format!("{image}{label}{vms}{folder}known_hosts_file = \"/k\"\n{pool}"),
            "provider p: known_hosts_file means nothing",
        ),
        (
            format!("{image}{label}{vms}{folder}[[provider.pool]]\nlabel = \"a\"\n"),
            "provider p: label a: image is missing",
        ),
        (format!("{label}{vms}{folder}{pool}"), "provider p: label a: its image d is no [[image]]"),
        (format!("{image}{image}"), "image d is there twice"),
        (
            image.replace("file\"\n", "debootstrap\"\n").replace("file = \"/d.qcow2\"\n", ""),
            "image d: suite is missing",
        ),
        (image.replace("file\"\n", "debootstrap\"\n"), "image d: file means nothing"),
        (
            "[[image]]\nname = \"d\"\nkind = \"debootstrap\"\nsuite = \"s\"\npackages = [\"--x\"]\n".into(),
            "image d: `--x` is no name",
        ),
        (
            "[[image]]\nname = \"d\"\nkind = \"diskimage-builder\"\n".into(),
            "image d: elements is missing",
        ),
        (format!("{image}rebuild_days = 1\n"), "image d: rebuild_days means nothing"),
        (image.replace("\"d\"", "\"a/b\""), "image `a/b`: a name has"),
        (
            format!(
                "{label}[[provider]]\nname = \"p\"\nkind = \"local\"\nmax_servers = 2\n{pool}"
            ),
            "provider p: pool.image means nothing for its kind",
        ),
    ] {
        let error = load(&text).expect_err(&text);
        assert!(error.starts_with(expected), "{text}\ngave {error}");
    }
}
