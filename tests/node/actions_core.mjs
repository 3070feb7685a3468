// GitHub's client library as the writer of what the stepper reads.
import * as core from "@actions/core";

core.setOutput("plain", "value");
core.setOutput("lines", "one\ntwo=2\nthree<<END\nEND");
core.setOutput("object", { a: [1, "ü"] });
core.exportVariable("OF_ALL", "one\ntwo");
core.addPath("/opt/tool/bin");
core.setSecret("hush-hush");
console.log("this is hush-hush now");
core.saveState("kept", "yes");
core.error("bad: 100%\nand on", { title: "A, title: here", file: "a,b:c.yml", startLine: 7 });
core.notice("fine");
core.startGroup("folded");
core.endGroup();
await core.summary.addHeading("Title").addTable([[{ data: "a", header: true }, { data: "b", header: true }], ["1", "2"]]).write();
