import re
from urllib.parse import quote
from tests.services.plane import Stage
from tests.web.console.browsing import signed_in, Browser, ORIGIN
from tests.web.console.test_access import CLOSED, address
async def test_x(any_stage: Stage) -> None:
    stage=any_stage
    d = await stage.decide(legacy="deny", model="allow")
    await stage.observed(n=1)
    bad=[]
    for p in ["/decisions?epoch=99999999999999999999999","/decisions?epoch="+"9"*5000,"/decisions?epoch=%D9%A3","/decisions?since=0001-01-01T00:00:00Z","/decisions?until=9999-12-31T23:59:59Z","/decisions?since=9999-12-31T23:59:59-14:00","/decisions?after=%ED%A0%80","/decisions?actor=%ED%A0%80","/decisions?before=x&after=y","/decisions?id=..","/decisions?id=%0d%0aX:1","/audit?who=%ED%A0%80","/audit?since=0001-01-01","/audit?cursor=%F0","/audit?rollout=x'%22","/rollouts/read?to=x","/rollouts/..%2f","/reports/daily?at=9999-12-31","/reports/daily?at=0001-01-01","/reports?period=daily&at=%0d%0a","/reports/daily/document?save=true&at=2027-01-15&format=md","/reviews?kind=x","/reviews?rollout=%ED%A0%80","/reviews/next?after=%ED%A0%80","/reviews/%ED%A0%80","/suites/..%2f..%2fetc","/suites/%2e%2e","/validations/%ED%A0%80","/versions/%ED%A0%80","/suites?version=%ED%A0%80","/reference?q=%ED%A0%80","/?q=%ED%A0%80","/sign-in?next=/%E6%97%A5","/sign-in?next=%ED%A0%80","/decisions.csv?epoch=9999999999999999999999","/decisions?version=%F0%9F%98%80&rollout=%ED%A0%80", "/v1/decisions?epoch=99999999999999999999999","/static/%2e%2e/pages.py","/static/..%2fpages.py"]:
        r = await stage.call("GET", p, who="admin")
        if r.status_code>=500: bad.append((p,r.status_code))
        print(p[:60], r.status_code, r.headers.get("location"), r.headers.get("content-disposition"))
    b = await signed_in(stage,"admin")
    h = await b.headers()
    for method,path,_ in CLOSED:
        if method=="POST":
          for val in ("a\x00b","\ud800".encode("utf-8","surrogatepass"),"x"*100000):
            fields={k:val for k in ("name","roles","actors","expires_at","typed","reason","kind","rollout","starts_at","ends_at","zone","to","decision","notes","category","id","url","kinds","version","suite","note","review","turn_to","wanted","actor","new","old","files_sha256","score","comment","fix","cause","mode","share")}
            for extra in ({}, {"decision":"deny"},{"roles":"reviewer","name":val},{"expected_revision":"1","to":"advisory"},{"expected_revision":"99999999999999999999999","to":"advisory"}):
                f={**fields,**extra}
                if path in ("/sign-out","/account/sessions/end","/suites/run"): continue
                try:
                    r=await b.client.post(address(path).replace("none", d["id"] if "/decisions" in path else "none"),data=f,headers=h)
                except Exception as e:
                    bad.append((path,repr(e)[:100])); continue
                if r.status_code>=500: bad.append((path,str(val)[:10],extra,r.status_code))
    for p in ("/sign-in",):
        for val in ("a\x00b",b"\xed\xa0\x80"):
            r=await b.client.post(p,data={"form":val,"key":val,"name":val,"next":val},headers={"Origin":ORIGIN}); print(p,r.status_code)
            if r.status_code>=500: bad.append((p,val))
    r=await b.client.post("/sign-in/"+quote("\x01é"),data={"form":"x"},headers={"Origin":ORIGIN}); print(r.status_code)
    r=await b.client.get("/account",headers={"Cookie":"phasegate_session=\xff\xfe; phasegate_form=\"<x>"}); print(r.status_code)
    r=await b.client.post("/sign-out",headers={**h,"X-CSRF-Token":"\xff"}); print(r.status_code)
    for each in sorted(set(map(str,bad))): print("BAD",each)
    assert not bad
