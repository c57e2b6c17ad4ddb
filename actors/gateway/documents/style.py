"""The look of our few pages: one stylesheet, light and dark, with the fonts that are there."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1c2430;--dim:#667085;--paper:#fff;--soft:#f5f7fa;--line:#e3e8ef;--link:#0b5cad;
--get:#0b6e4f;--post:#0b5cad;--delete:#b42318;--ws:#6941c6}
@media (prefers-color-scheme:dark){:root{--ink:#e4e9f0;--dim:#98a2b3;--paper:#11161d;--soft:#1a212b;--line:#2b3543;
--link:#7ab8f5;--get:#5fd0a5;--post:#7ab8f5;--delete:#f58b80;--ws:#b9a3f5}}
*{box-sizing:border-box}
html{scroll-padding-top:1rem}
body{margin:0;font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
color:var(--ink);background:var(--paper)}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
code,pre{font:.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
td code,dd code,p code,li code{background:var(--soft);border-radius:4px;padding:.1em .3em}
pre{background:var(--soft);border:1px solid var(--line);border-radius:8px;padding:1rem;overflow-x:auto}
.dim{color:var(--dim);font-size:.875em}
nav{padding:1.5rem;border-bottom:1px solid var(--line);font-size:.875rem}
nav .brand{font-size:1.15rem;font-weight:700;color:var(--ink)}
nav h3{font-size:.75rem;letter-spacing:.06em;text-transform:uppercase;margin:1.25rem 0 .35rem}
nav h3,nav h3 a{color:var(--dim)}
nav ul{list-style:none;margin:0;padding:0}
nav li a{display:flex;gap:.5rem;padding:.15rem 0;color:var(--ink);overflow-wrap:anywhere}
nav i{flex:0 0 2.9rem;font-size:.68rem;line-height:1.9}
main{max-width:58rem;padding:2.5rem 1.5rem 6rem;min-width:0}
@media (max-width:62rem){nav{columns:13rem}nav .brand{column-span:all;display:block}nav h3,nav ul{break-inside:avoid}
nav h3{break-after:avoid}}
@media (min-width:62rem){body{display:grid;grid-template-columns:18.5rem minmax(0,1fr)}
nav{position:sticky;top:0;height:100vh;overflow-y:auto;border:0;border-right:1px solid var(--line)}
main{padding:3rem 3.5rem 8rem}}
h1{font-size:2.1rem;line-height:1.2;margin:0 0 .5rem;letter-spacing:-.02em}
h2{font-size:1.5rem;margin:3.5rem 0 .25rem;letter-spacing:-.01em}h2 a,h3 a{color:inherit}
.lead{color:var(--dim);font-size:1.05rem;margin:.25rem 0 1rem;max-width:44rem}
.chips{display:flex;flex-wrap:wrap;gap:.5rem}
.chips>*{border:1px solid var(--line);border-radius:99px;padding:.15rem .8rem;font-size:.875rem}
article{border:1px solid var(--line);border-radius:10px;padding:1.1rem 1.35rem;margin:1.1rem 0}
article:target,details:target{border-color:var(--link);box-shadow:0 0 0 1px var(--link)}
article h3{display:flex;align-items:baseline;gap:.75rem;margin:0;font-size:1rem;overflow-wrap:anywhere}
article h3 code{font-size:1rem;font-weight:600}
article h4{margin:1.25rem 0 .4rem;font-size:.875rem}
article p{margin:.4rem 0}.does{font-size:1.05rem}
i{font-style:normal;font-weight:700;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.78rem;
text-transform:uppercase;letter-spacing:.02em}
.get{color:var(--get)}.post,.patch,.put{color:var(--post)}.delete{color:var(--delete)}.ws{color:var(--ws)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.75rem 0;font-size:.9rem}
dt{color:var(--dim)}dd{margin:0}
.wide{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th{font-size:.75rem;font-weight:600;color:var(--dim);text-align:left}
dt b{color:var(--ink)}
th,td{padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--line);vertical-align:top}
tbody tr:last-child td{border-bottom:0}
td:first-child{white-space:nowrap;width:1%}
tr:has(:target) td{background:var(--soft)}
details{border-top:1px solid var(--line);padding:.45rem 0;font-size:.9rem}
details details{border:0}
summary{cursor:pointer}summary:hover{color:var(--link)}
.codes{list-style:none;display:flex;flex-wrap:wrap;gap:.35rem .5rem;margin:.6rem 0 .2rem;padding:0}
.codes a{background:var(--soft);border-radius:6px;padding:.1rem .5rem;color:inherit;font-size:.85rem}
.shape{padding:.9rem 1.35rem}
.home{max-width:46rem;margin:0 auto;grid-column:1/-1;width:100%}
.home h1{font-size:2.6rem}
.cards{list-style:none;padding:0;margin:2rem 0;display:grid;gap:.75rem;
grid-template-columns:repeat(auto-fill,minmax(13rem,1fr))}
.cards a{display:block;height:100%;border:1px solid var(--line);border-radius:10px;padding:.9rem 1.1rem;color:inherit}
.cards a:hover{border-color:var(--link);text-decoration:none}
.cards b{display:block;color:var(--link)}.cards span{color:var(--dim);font-size:.9rem}
@media print{nav{display:none}body{display:block}article{break-inside:avoid}}
"""
