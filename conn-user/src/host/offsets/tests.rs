//! The running kernel's types, and those of stock kernels, frozen by `cargo xtask vm --freeze`.

use conn_tests::btf::{Member, Types};

use super::*;

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

/// A kernel that conntrace does not support.
const OLD: &[u8] = include_bytes!("../../../tests/kernel/5.10.btf");
/// Kernels that it supports.
const FROZEN: [(&str, &[u8]); 4] = [
    ("6.1", include_bytes!("../../../tests/kernel/6.1.btf")),
    ("6.12", include_bytes!("../../../tests/kernel/6.12.btf")),
    ("6.18", include_bytes!("../../../tests/kernel/6.18.btf")),
    ("7.2", include_bytes!("../../../tests/kernel/7.2.btf")),
];

fn find(types: &[u8]) -> std::result::Result<Offsets, OffsetsError> {
    Offsets::find(&Btf::from_bytes(types).expect("BTF"))
}

/// The types of a supported kernel, with members of one structure changed or left out.
fn changed(
    types: &[u8],
    structure: &str,
    change: impl Fn(&str, &mut Member) -> bool,
) -> std::result::Result<Offsets, OffsetsError> {
    let mut types = Types::parse(types);
    types.change_members(structure, change);
    find(&types.to_bytes())
}

/// The kernel of the test host is one of those supported, if it has BTF at all.
#[test]
fn finds_every_field_in_the_running_kernel() -> Result {
    let layout = Offsets::probe()?;
    assert_eq!(layout.globals().count(), FIELDS.len() + OPTIONAL.len());
    // Frozen since 5.8 on 64-bit kernels.
    assert!(layout.globals().any(|(name, &offset)| name == "SKC_DPORT" && offset == 12));
    Ok(())
}

#[test]
fn finds_every_field_in_stock_kernels() -> Result {
    let mut layouts = Vec::new();
    for (kernel, types) in FROZEN {
        let found = find(types);
        let hint = "a field that is new here is put into the fixtures by `cargo xtask vm --freeze`";
        layouts.push((kernel, found.map_err(|error| format!("{kernel}: {error}\n{hint}"))?));
    }
    let row = |name: &str, cells: Vec<String>| {
        let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:>6}")).collect();
        format!("{name:45} {}", cells.join(" "))
    };
    let mut table = vec![row("", layouts.iter().map(|(kernel, _)| (*kernel).to_owned()).collect())];
    for (number, field) in FIELDS.iter().chain(OPTIONAL).enumerate() {
        let offsets = layouts.iter().map(|(_, layout)| layout.fields[number].1.to_string()).collect();
        table.push(row(&format!("{}.{}", field.structure, field.path), offsets));
    }
    insta::assert_snapshot!(table.join("\n"));
    for (kernel, layout) in layouts {
        assert_eq!(layout.accept_parameters, Some(if kernel == "6.1" { 4 } else { 2 }), "{kernel}");
    }
    Ok(())
}

/// As bpftool and the verifier of that kernel had them.
#[test]
fn offsets_match_those_of_other_tools() -> Result {
    let layout = find(FROZEN[2].1)?;
    for (name, expected) in [
        ("SKC_DADDR", 0),
        ("SKC_RCV_SADDR", 4),
        ("SKC_DPORT", 12),
        ("SKC_NUM", 14),
        ("SKC_FAMILY", 16),
        ("SKC_STATE", 18),
        ("SK_ERR", 284),
        ("TCP_BYTES_RECEIVED", 1752),
        ("TCP_BYTES_SENT", 1544),
        ("TCP_BYTES_RETRANS", 2192),
        ("TCP_SEGS_IN", 1760),
        ("TCP_SEGS_OUT", 1536),
        ("TCP_TOTAL_RETRANS", 2200),
        ("TCP_SRTT_US", 1680),
        ("TCP_RTT_MIN", 1496),
    ] {
        let found = layout.globals().find(|(global, _)| *global == name);
        assert_eq!(found, Some((name, &expected)));
    }
    Ok(())
}

#[test]
fn old_kernel_is_refused() {
    let refused = find(OLD);
    assert!(matches!(refused, Err(OffsetsError::TooOld { .. })), "{refused:?}");
}

#[test]
fn a_structure_may_begin_with_something_else() -> Result {
    for (kernel, types) in FROZEN {
        let (plain, shifted) = (
            find(types)?,
            changed(types, "sock_common", |_, member| {
                member.bits += 64;
                true
            })?,
        );
        for ((field, before), after) in
            FIELDS.iter().chain(OPTIONAL).zip(plain.globals()).zip(shifted.globals())
        {
            let by = if field.structure == "sock_common" { 8 } else { 0 };
            assert_eq!((after.0, *after.1), (before.0, before.1 + by), "{kernel}");
        }
    }
    Ok(())
}

/// As kernels before 5.6 have the protocol: eight bits of a word that has no address of its own.
#[test]
fn bit_field_counts_as_missing() {
    for (kernel, types) in FROZEN {
        let refused = changed(types, "sock", |name, member| {
            member.width = if name == "sk_protocol" { 8 } else { member.width };
            true
        });
        let Err(OffsetsError::MissingField { structure: "sock", member: "sk_protocol" }) = refused else {
            panic!("{kernel}: {refused:?}");
        };
    }
}

#[test]
fn error_names_the_missing_field() -> Result {
    let (_, types) = FROZEN[0];
    for field in FIELDS {
        let first = field.path.split('.').next().unwrap_or_default();
        let refused = match changed(types, field.structure, |name, _| name != first) {
            Err(refused) => refused,
            // It is in a structure without a name, and that has others.
            Ok(_) => changed(types, field.structure, |name, _| !name.is_empty()).expect_err("gone"),
        };
        let OffsetsError::MissingField { structure, member } = refused else {
            panic!("{field:?}: {refused}")
        };
        assert_eq!(structure, field.structure);
        let removed = FIELDS.iter().filter(|other| other.structure == structure);
        assert!(removed.clone().any(|other| other.path == member), "{field:?}: {member}");
    }
    let layout = changed(types, "mptcp_sock", |name, _| name != "first")?;
    assert!(layout.globals().any(|(name, &offset)| name == "MPTCP_FIRST" && offset == 0));
    Ok(())
}

#[test]
fn field_of_another_size_counts_as_missing() -> Result {
    let btf = Btf::from_bytes(FROZEN[0].1)?;
    let wrong = [
        Field { global: "X", structure: "sock_common", path: "skc_gone", size: 2 },
        Field { global: "X", structure: "sock_common", path: "skc_dport", size: 4 },
        Field { global: "X", structure: "no_such_struct", path: "x", size: 4 },
    ];
    for field in &wrong {
        let found = structure(&btf, field.structure).and_then(|of_type| offset(&btf, of_type, field));
        assert_eq!(found, None, "{field:?}");
    }
    Ok(())
}
