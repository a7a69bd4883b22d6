//! Settings of nodes: what is read, what is refused and how it is told.

use super::*;
use toci_wire::settings::SettingsText;

const FILE: &str = "t";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    nodes: NodesFile,
    label: Vec<LabelFile>,
    provider: Vec<ProviderFile>,
    image: Vec<ImageFile>,
}

fn load(text: &str) -> Result<Option<NodeConfig>, String> {
    let text = SettingsText::new(FILE, text);
    let file: File = text.read().map_err(|e| e.to_string())?;
    let files = NodeFiles {
        nodes: file.nodes,
        labels: file.label,
        providers: file.provider,
        images: file.image,
    };
    filled_in(files, Path::new("/s")).map_err(|wrong| text.refuse(&wrong).to_string())
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
        ProviderKind::Local(_) | ProviderKind::Libvirt(_) | ProviderKind::OpenStack(_) => None,
    });
    let machine = &fixed.unwrap().machines[1];
    assert_eq!((machine.target.as_str(), machine.port), ("root@192.0.2.8", 2222));
    let vms = config.kinds.values().find_map(|k| match k {
        ProviderKind::Libvirt(vms) => Some(vms),
        ProviderKind::Local(_) | ProviderKind::Fixed(_) | ProviderKind::OpenStack(_) => None,
    });
    let vms = vms.unwrap();
    assert_eq!((vms.images.len(), vms.shapes.len()), (3, 3));
    assert_eq!(vms.state, Path::new("/s/providers/vms"));
    assert_eq!(vms.boot_limit, toci_edge::provider::libvirt::config::BOOT_LIMIT);
    assert_eq!(vms.uri, "qemu:///system");
    // What is not said of a virtual machine counts as what it will be.
    let pools = config.settings.providers.iter().find(|p| p.name.as_str() == "vms").unwrap();
    let costs: Vec<(u64, u64)> =
        pools.pools.values().map(|pool| (pool.cost.cpus, pool.cost.memory_mib)).collect();
    assert_eq!(costs, [(1, 2048), (2, 4096), (1, 2048)]);
    assert!(load("").unwrap().is_none());
}

#[test]
fn what_makes_no_sense_is_told() {
    let label = "[[label]]\nname = \"a\"\n";
    let local = "[[provider]]\nname = \"p\"\nkind = \"local\"\n";
    let pool = "[[provider.pool]]\nlabel = \"a\"\n";
    let fixed = "[[provider]]\nname = \"p\"\nkind = \"static\"\nssh_key_file = \"/k\"\nknown_hosts_file = \"/h\"\n";
    for (text, expected) in [
        (label.to_owned(), "t:1:1: label[a]: no [[provider]] has"),
        (format!("{label}{label}"), "t:4:8: label[a].name: it is there twice"),
        (format!("{label}{local}{pool}"), "t:3:1: provider[p].max_servers: it is missing"),
        (
            format!("{label}{local}max_servers = 1\n[[provider.pool]]\nlabel = \"b\"\n"),
            "t:8:9: provider[p].pool[b].label: b is no [[label]]",
        ),
        (
            format!("{label}{local}max_servers = 2\naddresses = \"198.18.1.1-198.18.1.3\"\n{pool}"),
            "t:7:13: provider[p].addresses: it has 1 pairs",
        ),
        (
            format!("{label}{local}max_servers = 2\naddresses = \"198.18.1.9\"\n{pool}"),
            "t:7:13: provider[p].addresses: it is `198.18.1.9`: use FIRST-LAST",
        ),
        (
            format!("{label}{local}max_servers = 2\ncleanup = \"x\"\n{pool}"),
            "t:7:11: provider[p].cleanup: it means nothing for this kind",
        ),
        (
            format!("{label}{local}max_servers = 2\ncgroup = \"x\"\n{pool}"),
            "t:7:10: provider[p].cgroup: `x` is not absolute",
        ),
        (
            format!("{label}{local}max_servers = 2\n{pool}disk_mib = 0\n"),
            "t:9:12: provider[p].pool[a].disk_mib: it is 0: use at least 1",
        ),
        (
            format!("{label}{fixed}cleanup = \"x\"\n{pool}disk_mib = 1\nmachines = [\"a@h\"]\n"),
            "t:11:12: provider[p].pool[a].disk_mib: it means nothing for this kind",
        ),
        (
            format!("{label}{fixed}{pool}machines = [\"root@h\"]\n"),
            "t:3:1: provider[p].cleanup: it is missing",
        ),
        (
            format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"h\"]\n"),
            "t:11:13: provider[p].pool[a].machines[0]: `h`: use USER@HOST",
        ),
        (
            format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"a@-oProxyCommand\"]\n"),
            "t:11:13: provider[p].pool[a].machines[0]: `a@-oProxyCommand`: use USER@HOST",
        ),
        (
            format!("{label}{fixed}cleanup = \"x\"\n{pool}machines = [\"a@h\", \"a@h:22\"]\n"),
            "t:11:20: provider[p].pool[a].machines[1]: a@h:22 is there twice",
        ),
        (
            format!("{label}{local}max_servers = 2\nmax_server = 2\n{pool}"),
            "t:7:1: provider[p].max_server: unknown field `max_server`",
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
        (format!("{image}{label}{vms}{pool}"), "t:7:1: provider[p].folder: it is missing"),
        (format!("{image}{label}{vms}folder = \"f\"\n{pool}"), "t:11:10: provider[p].folder: it is `f`: use an absolute"),
        (format!("{image}{label}{vms}{folder}uri = \"xen:///\"\n{pool}"), "t:12:7: provider[p].uri: it is `xen:///`"),
        (
            format!("{image}{label}{vms}{folder}uri = \"qemu+ssh://h/system\"\n{pool}"),
            "t:7:1: provider[p].network: it is missing: or bridge",
        ),
        (
            format!("{image}{label}{vms}{folder}network = \"n\"\nbridge = \"b\"\n{pool}"),
            "t:13:10: provider[p].bridge: network is given too",
        ),
        (format!("{image}{label}{vms}{folder}ssh_user = \"-o\"\n{pool}"), "t:12:12: provider[p].ssh_user: it is `-o`"),
        (
            format!("{image}{label}{vms}{folder}known_hosts_file = \"/k\"\n{pool}"),
            "t:12:20: provider[p].known_hosts_file: it means nothing",
        ),
        (
            format!("{image}{label}{vms}{folder}[[provider.pool]]\nlabel = \"a\"\n"),
            "t:12:1: provider[p].pool[a].image: it is missing",
        ),
        (format!("{label}{vms}{folder}{pool}"), "t:10:9: provider[p].pool[a].image: d is no [[image]]"),
        (format!("{image}{image}"), "t:6:8: image[d].name: it is there twice"),
        (
            image.replace("file\"\n", "debootstrap\"\n").replace("file = \"/d.qcow2\"\n", ""),
            "t:1:1: image[d].suite: it is missing",
        ),
        (image.replace("file\"\n", "debootstrap\"\n"), "t:4:8: image[d].file: it means nothing"),
        (
            "[[image]]\nname = \"d\"\nkind = \"debootstrap\"\nsuite = \"s\"\npackages = [\"--x\"]\n".into(),
            "t:5:13: image[d].packages[0]: `--x` is no name",
        ),
        (
            "[[image]]\nname = \"d\"\nkind = \"diskimage-builder\"\n".into(),
            "t:1:1: image[d].elements: it is missing",
        ),
        (format!("{image}rebuild_days = 1\n"), "t:5:16: image[d].rebuild_days: it means nothing"),
        (format!("{image}keep = 0\n"), "t:5:8: image[d].keep: 1 to 20 are kept"),
        (image.replace("\"d\"", "\"a/b\""), "t:2:8: image[a/b].name: a name has"),
        (
            format!(
                "{label}[[provider]]\nname = \"p\"\nkind = \"local\"\nmax_servers = 2\n{pool}"
            ),
            "t:9:9: provider[p].pool[a].image: it means nothing for this kind",
        ),
    ] {
        let error = load(&text).expect_err(&text);
        assert!(error.starts_with(expected), "{text}\ngave {error}");
    }
}

#[test]
fn a_libvirt_elsewhere_is_reached_as_libvirt_says_it() {
    let text = documented().replace(
        "uri = \"qemu:///system\"",
        "uri = \"qemu+ssh://root@host/system?no_tty=1&keyfile=/etc/toci/libvirt_key\"",
    );
    let config = load(&text).unwrap().unwrap();
    let uris = config.kinds.values().find_map(|kind| match kind {
        ProviderKind::Libvirt(vms) => Some(vms.uri.as_str()),
        ProviderKind::Local(_) | ProviderKind::Fixed(_) | ProviderKind::OpenStack(_) => None,
    });
    let expected = "qemu+ssh://root@host/system?no_tty=1&keyfile=/etc/toci/libvirt_key";
    assert_eq!(uris, Some(expected));
}

/// The cloud settings of docs/nodes.md, with a clouds.yaml that is there.
fn documented_cloud(folder: &Path) -> String {
    let page = include_str!("../../../../docs/nodes.md");
    let text = page.split("```toml\n").nth(2).unwrap().split("```").next().unwrap();
    let file = folder.join("clouds.yaml");
    let clouds = "clouds: {hp1: {auth: {auth_url: 'http://192.0.2.1:5000', username: ci, project_name: ci}}}";
    std::fs::write(&file, clouds).unwrap();
    let secure = "clouds: {hp1: {auth: {password: hush}}}";
    std::fs::write(folder.join("secure.yaml"), secure).unwrap();
    text.replace("/etc/toci/clouds.yaml", &file.display().to_string())
}

#[test]
fn the_documented_cloud_loads() {
    let folder = tempfile::tempdir().unwrap();
    let config = load(&documented_cloud(folder.path())).unwrap().unwrap();
    assert!(!format!("{config:?}").contains("hush"));
    let name = ProviderName::new("hp1").unwrap();
    let Some(ProviderKind::OpenStack(cloud)) = config.kinds.get(&name) else {
        panic!("{config:?}")
    };
    assert_eq!(cloud.cloud.settings().region.as_deref(), Some("RegionOne"));
    assert_eq!((cloud.images.len(), cloud.config_drive), (1, true));
    let shape = cloud.shapes.values().next().unwrap();
    assert_eq!(shape.networks, ["private", "test"]);
    let environment = &config.environments[&name];
    assert_eq!(environment["GEARDSERVER"], "192.0.2.10");
    let provider = &config.settings.providers[0];
    let cost = provider.pools.values().next().unwrap().cost;
    assert_eq!((provider.quota.servers, cost.cpus, cost.memory_mib), (40, 4, 8192));
}

#[test]
fn what_is_wrong_with_a_cloud_is_told_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let good = documented_cloud(folder.path());
    for (from, to, expected) in [
        ("cloud = \"hp1\"", "cloud = \"xx\"", "provider[hp1].cloud: "),
        (
            "owner = \"ci-example-org\"",
            "owner = \"a:b\"",
            "provider[hp1].owner: a mark has 1 to 40",
        ),
        (
            "cpus = 4",
            "flavor = \"x\"",
            "provider[hp1].pool[tripleo].memory_mib: flavor is given too",
        ),
        (
            "image = \"debian\"",
            "image = \"fedora\"",
            "provider[hp1].pool[tripleo].image: fedora is no [[image]]",
        ),
        ("NODE_MIRROR", "TOCI_MIRROR", "provider[hp1].environment: `TOCI_MIRROR`"),
        ("kind = \"openstack\"", "kind = \"libvirt\"", "provider[hp1].cloud: it means nothing"),
        (
            "host_key = \"console\"",
            "host_key = \"blind\"",
            "provider[hp1].host_key: unknown variant",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let error = load(&good.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(expected), "{to} gave {error}");
    }
}
