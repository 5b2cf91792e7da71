//! What `tests/tidy.rs` knows of a source file: the paths that it names, where `unsafe` stands, how long it and its
//! functions are. `syn` reads the Rust; within a macro, which it leaves alone, the tokens are read one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A path that a file names, from the root of its crate on if it begins there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPath {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Whether only tests name it.
    pub(crate) in_tests: bool,
}

impl NamedPath {
    /// Whether `wanted`, such as `std::net`, is a part of it.
    pub(crate) fn names(&self, wanted: &str) -> bool {
        let wanted: Vec<&str> = wanted.split("::").collect();
        self.segments.windows(wanted.len()).any(|window| window == wanted)
    }

    /// Whether it begins with `wanted`.
    pub(crate) fn begins(&self, wanted: &str) -> bool {
        let wanted: Vec<&str> = wanted.split("::").collect();
        self.segments.len() >= wanted.len() && self.segments[..wanted.len()] == wanted
    }
}

/// A function and its length, from `fn` to its last brace.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

/// Something that a file declares public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Public {
    pub(crate) name: String,
    /// Whether it can't grow without breaking code that uses it: an enum, or a struct with public fields alone, that
    /// isn't `non_exhaustive`.
    pub(crate) is_exhaustive: bool,
    /// Of a method, the type that has it.
    pub(crate) owner: Option<String>,
}

/// One source file.
pub(crate) struct Source {
    /// Below `src`.
    pub(crate) path: PathBuf,
    pub(crate) module: Vec<String>,
    pub(crate) first_line: String,
    /// Without those of its tests.
    pub(crate) lines: usize,
    pub(crate) paths: Vec<NamedPath>,
    pub(crate) functions: Vec<Function>,
    /// The lines on which `unsafe` stands.
    pub(crate) unsafe_lines: Vec<usize>,
    /// What it declares public, modules apart, and its public modules and `use`s; not what is hidden from the
    /// documents.
    pub(crate) public: Vec<Public>,
    pub(crate) public_paths: Vec<Vec<String>>,
    /// The words of the examples in its documents, which `cargo test` compiles.
    pub(crate) example_words: BTreeSet<String>,
    /// What stands at its top level, by the names of functions, types and so on, with the lines that it takes. An `impl`
    /// is a part of its type, wherever that is declared.
    pub(crate) items: Vec<(Vec<String>, RangeInclusive<usize>)>,
    /// The traits that it implements for something, by their last names.
    pub(crate) implemented: BTreeSet<String>,
    /// The variants of its enums, each with the enum's name.
    pub(crate) variants: Vec<(String, String)>,
    /// What its `use` declarations call what: a name, by its module and itself, and the path that it stands for.
    pub(crate) uses: BTreeMap<Vec<String>, Vec<String>>,
}

impl Source {
    pub(crate) fn new(path: &Path, text: &str) -> Source {
        let parts = path.with_extension("");
        let mut module: Vec<String> =
            parts.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        let tokens: TokenStream =
            text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut unsafe_lines = Vec::new();
        find_unsafe(tokens.clone(), &mut unsafe_lines);
        let file: syn::File =
            syn::parse2(tokens).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let is_root = matches!(module.join("::").as_str(), "main" | "lib");
        let mut reader = Reader {
            module: if is_root { Vec::new() } else { module.clone() },
            modules: Vec::new(),
            is_tests: module.iter().any(|part| part == "tests"),
            test_lines: 0,
            paths: Vec::new(),
            functions: Vec::new(),
            uses: BTreeMap::new(),
            documents: Vec::new(),
        };
        reader.visit_file(&file);
        let (mut public, mut public_paths) = (Vec::new(), Vec::new());
        for item in &file.items {
            note_public(item, &reader, &mut public, &mut public_paths);
        }
        let items = file.items.iter().filter_map(|item| named_item(item, &reader)).collect();
        let lines = text.lines().count();
        Source {
            path: path.to_owned(),
            first_line: text.lines().next().unwrap_or_default().to_owned(),
            lines: if reader.is_tests { 0 } else { lines - reader.test_lines },
            module,
            paths: reader.paths,
            functions: reader.functions,
            unsafe_lines,
            public,
            public_paths,
            example_words: example_words(&reader.documents),
            items,
            implemented: file.items.iter().filter_map(implemented).collect(),
            variants: file.items.iter().flat_map(variants).collect(),
            uses: reader.uses,
        }
    }

    /// The module's path; a crate root's name is `main` or `lib`.
    pub(crate) fn name(&self) -> String {
        self.module.join("::")
    }

    /// Whether it is `part` or below it.
    pub(crate) fn is_below(&self, part: &str) -> bool {
        let name = self.name();
        name == part || name.strip_prefix(part).is_some_and(|rest| rest.starts_with("::"))
    }
}

fn find_unsafe(tokens: TokenStream, lines: &mut Vec<usize>) {
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "unsafe" => lines.push(word.span().start().line),
            TokenTree::Group(group) => find_unsafe(group.stream(), lines),
            _ => {}
        }
    }
}

/// Goes through a file.
struct Reader {
    /// Where in the tree it is.
    module: Vec<String>,
    /// The modules that are declared there.
    modules: Vec<String>,
    is_tests: bool,
    test_lines: usize,
    paths: Vec<NamedPath>,
    functions: Vec<Function>,
    uses: BTreeMap<Vec<String>, Vec<String>>,
    /// Lines of `//!` and `///`.
    documents: Vec<String>,
}

impl Reader {
    fn record(&mut self, segments: Vec<String>, line: usize) {
        let segments = self.resolved(&segments);
        self.paths.push(NamedPath { segments, line, in_tests: self.is_tests });
    }

    /// A path from the root of the crate on, where that can be told.
    fn resolved(&self, segments: &[String]) -> Vec<String> {
        let ups = segments.iter().take_while(|segment| *segment == "super").count();
        let relative =
            segments.iter().skip_while(|segment| matches!(segment.as_str(), "super" | "self"));
        let from = |module: &[String]| {
            [&["crate".to_owned()], module].concat().into_iter().chain(relative.cloned()).collect()
        };
        match segments.first().map(String::as_str) {
            Some("laneway") => [&["crate".to_owned()], &segments[1..]].concat(),
            Some("super" | "self") => from(&self.module[..self.module.len().saturating_sub(ups)]),
            Some(first) if self.modules.iter().any(|module| module == first) => from(&self.module),
            // A name that a `use` before it has brought.
            Some(first) if segments.len() > 1 => {
                let key = [&self.module[..], &[first.to_owned()]].concat();
                let front = self.uses.get(&key).map_or(&segments[..1], |path| path);
                [front, &segments[1..]].concat()
            }
            _ => segments.to_vec(),
        }
    }

    fn use_tree(&mut self, tree: &syn::UseTree, mut front: Vec<String>) {
        let (name, called) = match tree {
            syn::UseTree::Path(path) => {
                front.push(path.ident.to_string());
                return self.use_tree(&path.tree, front);
            }
            syn::UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.use_tree(tree, front.clone()));
            }
            syn::UseTree::Name(name) => (Some(&name.ident), Some(&name.ident)),
            syn::UseTree::Rename(name) => (Some(&name.ident), Some(&name.rename)),
            syn::UseTree::Glob(_) => (None, None),
        };
        front.extend(name.filter(|name| *name != "self").map(ToString::to_string));
        if let Some(called) = called.map(ToString::to_string) {
            let called = if called == "self" { front.last().cloned() } else { Some(called) };
            let key = self.module.iter().cloned().chain(called).collect();
            self.uses.insert(key, self.resolved(&front));
        }
        self.record(front, tree.span().start().line);
    }

    /// The paths in what a macro is given: names with `::` between.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) => {
                    path.push(word.to_string());
                    let mut is_colon = || {
                        tokens.next_if(
                            |next| matches!(next, TokenTree::Punct(p) if p.as_char() == ':'),
                        )
                    };
                    let goes_on = is_colon().is_some() && is_colon().is_some();
                    if !goes_on || !matches!(tokens.peek(), Some(TokenTree::Ident(_))) {
                        self.record(std::mem::take(&mut path), word.span().start().line);
                    }
                }
                _ => {}
            }
        }
    }

    /// Goes on within tests, if `attributes` say that it is one.
    fn within(&mut self, attributes: &[syn::Attribute], lines: usize, go: impl FnOnce(&mut Self)) {
        let is_test = |attribute: &syn::Attribute| match &attribute.meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
            _ => false,
        };
        let was_tests = self.is_tests;
        if !was_tests && attributes.iter().any(is_test) {
            self.is_tests = true;
            self.test_lines += lines;
        }
        go(self);
        self.is_tests = was_tests;
    }

    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let line = signature.span().start().line;
        let lines = block.span().end().line - line + 1;
        self.functions.push(Function { name: signature.ident.to_string(), line, lines });
    }
}

/// How many lines something takes.
fn lines_of(item: &impl Spanned) -> usize {
    let span = item.span();
    span.end().line - span.start().line + 1
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_file(&mut self, file: &'ast syn::File) {
        self.modules = declared(&file.items);
        visit::visit_file(self, file);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.within(&item.attrs, lines_of(item), |reader| {
            let Some((_, items)) = &item.content else { return };
            let outside = std::mem::replace(&mut reader.modules, declared(items));
            reader.module.push(item.ident.to_string());
            visit::visit_item_mod(reader, item);
            reader.module.pop();
            reader.modules = outside;
        });
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        visit::visit_visibility(self, &item.vis);
        self.within(&item.attrs, lines_of(item), |reader| reader.use_tree(&item.tree, Vec::new()));
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::NameValue(of) = &attribute.meta
            && of.path.is_ident("doc")
            && let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(line), .. }) = &of.value
        {
            self.documents.push(line.value());
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.record(segments, path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
        visit::visit_macro(self, call);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.within(&item.attrs, lines_of(item), |reader| {
            reader.function(&item.sig, &item.block);
            visit::visit_item_fn(reader, item);
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(&item.attrs, lines_of(item), |reader| {
            reader.function(&item.sig, &item.block);
            visit::visit_impl_item_fn(reader, item);
        });
    }
}

/// The path of what `item` declares or is a part of, and its lines; not of modules, uses and tests.
fn named_item(item: &syn::Item, reader: &Reader) -> Option<(Vec<String>, RangeInclusive<usize>)> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Impl(item) => match &*item.self_ty {
            syn::Type::Path(of) => &of.path.segments.last()?.ident,
            _ => return None,
        },
        _ => return None,
    };
    let own: Vec<_> = reader.module.iter().cloned().chain([name.to_string()]).collect();
    let path = match reader.uses.get(&own) {
        Some(path) => path.clone(),
        None => [&["crate".to_owned()], &own[..]].concat(),
    };
    let span = item.span();
    Some((path, span.start().line..=span.end().line))
}

/// The last name of the trait that `item` implements, if it does.
fn implemented(item: &syn::Item) -> Option<String> {
    let syn::Item::Impl(syn::ItemImpl { trait_: Some((path, _)), .. }) = item else {
        return None;
    };
    path.segments.last().map(|segment| segment.ident.to_string())
}

/// The variants of `item`, if it is an enum.
fn variants(item: &syn::Item) -> Vec<(String, String)> {
    let syn::Item::Enum(of) = item else { return Vec::new() };
    let names = of.variants.iter().map(|variant| (of.ident.to_string(), variant.ident.to_string()));
    names.collect()
}

/// The names of the modules among `items`.
fn declared(items: &[syn::Item]) -> Vec<String> {
    let modules = items.iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module.ident.to_string()),
        _ => None,
    });
    modules.collect()
}

/// The words in the examples among these lines of documents: in code that is Rust.
fn example_words(documents: &[String]) -> BTreeSet<String> {
    let (mut words, mut is_code, mut is_example) = (BTreeSet::new(), false, false);
    for line in documents {
        if let Some(language) = line.trim().strip_prefix("```") {
            is_code = !is_code;
            is_example = is_code && matches!(language, "" | "rust" | "no_run" | "should_panic");
        } else if is_example {
            let code = line.split("//").next().unwrap_or_default();
            let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
            words.extend(code.split(|letter| !is_part(letter)).map(str::to_owned));
        }
    }
    words
}

/// Whether the documents leave it out.
fn is_hidden(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|of| {
        of.path().is_ident("doc")
            && matches!(&of.meta, syn::Meta::List(list) if list.tokens.to_string() == "hidden")
    })
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

/// Notes the methods of a type that users of the crate may call.
fn note_methods(item: &syn::ItemImpl, names: &mut Vec<Public>) {
    let syn::Type::Path(of) = &*item.self_ty else { return };
    if item.trait_.is_some() {
        return;
    }
    let owner = of.path.segments.last().map(|segment| segment.ident.to_string());
    for method in &item.items {
        if let syn::ImplItem::Fn(method) = method
            && is_public(&method.vis)
            && !is_hidden(&method.attrs)
        {
            let (name, owner) = (method.sig.ident.to_string(), owner.clone());
            names.push(Public { name, is_exhaustive: false, owner });
        }
    }
}

/// Notes what `item` offers to users of the crate.
fn note_public(
    item: &syn::Item,
    reader: &Reader,
    names: &mut Vec<Public>,
    paths: &mut Vec<Vec<String>>,
) {
    let (attributes, visibility, name) = match item {
        syn::Item::Const(item) => (&item.attrs, &item.vis, &item.ident),
        syn::Item::Enum(item) => (&item.attrs, &item.vis, &item.ident),
        syn::Item::Fn(item) => (&item.attrs, &item.vis, &item.sig.ident),
        syn::Item::Static(item) => (&item.attrs, &item.vis, &item.ident),
        syn::Item::Struct(item) => (&item.attrs, &item.vis, &item.ident),
        syn::Item::Trait(item) => (&item.attrs, &item.vis, &item.ident),
        syn::Item::Type(item) => (&item.attrs, &item.vis, &item.ident),
        syn::Item::Union(item) => (&item.attrs, &item.vis, &item.ident),
        syn::Item::Mod(item) => (&item.attrs, &item.vis, &item.ident),
        syn::Item::Impl(item) => return note_methods(item, names),
        syn::Item::Use(item) if is_public(&item.vis) => {
            return leaves(&item.tree, Vec::new(), &mut |path| paths.push(reader.resolved(path)));
        }
        _ => return,
    };
    if !is_public(visibility) || is_hidden(attributes) {
        return;
    }
    let is_open = attributes.iter().any(|of| of.path().is_ident("non_exhaustive"));
    let is_whole = match item {
        syn::Item::Enum(_) => true,
        syn::Item::Struct(item) => item.fields.iter().all(|field| is_public(&field.vis)),
        _ => false,
    };
    match item {
        syn::Item::Mod(_) => paths.push(reader.resolved(&[name.to_string()])),
        _ => names.push(Public {
            name: name.to_string(),
            is_exhaustive: is_whole && !is_open,
            owner: None,
        }),
    }
}

/// Each path of a `use`; `*` stands for all that a module has.
fn leaves(tree: &syn::UseTree, mut front: Vec<String>, found: &mut dyn FnMut(&[String])) {
    match tree {
        syn::UseTree::Path(path) => {
            front.push(path.ident.to_string());
            leaves(&path.tree, front, found);
        }
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|tree| leaves(tree, front.clone(), found));
        }
        syn::UseTree::Name(name) => {
            front.push(name.ident.to_string());
            found(&front);
        }
        syn::UseTree::Rename(name) => {
            front.push(name.ident.to_string());
            found(&front);
        }
        syn::UseTree::Glob(_) => {
            front.push("*".to_owned());
            found(&front);
        }
    }
}
